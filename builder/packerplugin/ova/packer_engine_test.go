// SPDX-License-Identifier: Apache-2.0

//go:build engine

package postova

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const template = `
packer {
  required_plugins {
    holdfast = {
      version = ">= 0.1.0"
      source  = "github.com/holdfast/holdfast"
    }
  }
}
source "holdfast" "demo" {}
build {
  sources = ["source.holdfast.demo"]
  post-processor "holdfast-ova" {
    keep_input_artifact = KEEP
    networks            = ["LAN"]
    properties          = { ntp = "time.example.com" }
  }
  post-processor "manifest" { output = "packer-manifest.json" }
}
`

// Packer makes the OVA in both encodings it speaks with plugins, and lists it;
// the folder it lies in stays, whatever is asked.
func TestPackerBuild(t *testing.T) {
	program, err := exec.LookPath("packer")
	if err != nil {
		t.Fatal("packer is not on the PATH: run `make test-engine`, which builds it, or install 1.11 or newer")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string]string{"protobuf": "PACKER_FORCE_GOB=", "gob": "PACKER_FORCE_GOB=1"} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			plugins := t.TempDir()
			keep := map[string]string{"protobuf": "true", "gob": "false"}[name]
			if err := os.WriteFile("demo.pkr.hcl", []byte(strings.ReplaceAll(template, "KEEP", keep)), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{
				{"plugins", "install", "--path", self, "github.com/holdfast/holdfast"}, {"init", "."}, {"validate", "."}, {"build", "."},
			} {
				cmd := exec.CommandContext(t.Context(), program, args...)
				cmd.Env = append(os.Environ(), "PACKER_PLUGIN_PATH="+plugins, "CHECKPOINT_DISABLE=1", "PACKER_NO_COLOR=1", "PACKER_CONFIG_DIR="+plugins, env)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("packer %v: %v\n%s", args, err, out)
				}
			}
			for _, f := range []string{"out/demo-1.0.0.ova", "out/demo-1.0.0.ova.json", "out/disk.raw"} {
				if _, err := os.Stat(f); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
