// SPDX-License-Identifier: Apache-2.0

//go:build engine

package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/packerplugin"
	postami "github.com/holdfast/holdfast/builder/packerplugin/ami"
	"github.com/holdfast/holdfast/builder/target"
)

// plugin lets the test binary be the plugin too: its bake takes a finished
// disk.
func plugin(args []string) error {
	bake := func(ctx context.Context, c builder.Config, p builder.Progress) (*builder.Result, error) {
		from := os.Getenv("HOLDFAST_TEST_DISK")
		if err := os.MkdirAll(c.Output, 0o755); err != nil {
			return nil, err
		}
		for _, name := range []string{target.DiskName, builder.ManifestName} {
			if err := os.Symlink(filepath.Join(from, name), filepath.Join(c.Output, name)); err != nil && !errors.Is(err, os.ErrExist) {
				return nil, err
			}
		}
		m, err := builder.ReadManifest(c.Output)
		if err != nil {
			return nil, err
		}
		dir, err := filepath.Abs(c.Output)
		return &builder.Result{Output: dir, Manifest: *m}, err
	}
	return packerplugin.Serve(args, "0.1.0", packerplugin.New(bake, builder.OS{}), map[string]packersdk.PostProcessor{"ami": postami.New()})
}

const template = `
packer {
  required_plugins {
    holdfast = {
      version = ">= 0.1.0"
      source  = "github.com/holdfast/holdfast"
    }
  }
}
source "holdfast" "demo" {
  name    = "demo"
  version = "1.0.0"
  stack   = "compose.yaml"
  lock    = "x.lock"
  output  = "out"
}
build {
  sources = ["source.holdfast.demo"]
  post-processors {
    post-processor "holdfast-ami" {
      region              = "eu-central-1"
      ami_name            = "demo 1"
      ami_regions         = ["us-east-1"]
      tags                = { team = "a" }
      custom_endpoint_ec2 = "ADDRESS"
      custom_endpoint_ebs = "ADDRESS"
      cache               = "cache"
      EXTRA
    }
    post-processor "manifest" { output = "packer-manifest.json" }
  }
}
`

// Packer itself, in both of its encodings: the images are made, the manifest
// has their ids, and the output folder is still there.
func TestPacker(t *testing.T) {
	program, err := exec.LookPath("packer")
	if err != nil {
		t.Fatal("packer is not on the PATH: run `make test-engine`, which builds it, or install 1.11 or newer")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	disk := part(t, 16, nil)
	for name, env := range map[string]string{"protobuf": "PACKER_FORCE_GOB=", "gob": "PACKER_FORCE_GOB=1"} {
		t.Run(name, func(t *testing.T) {
			p := account(t)
			t.Chdir(t.TempDir())
			plugins := t.TempDir()
			packer := func(args ...string) (string, error) {
				cmd := exec.CommandContext(t.Context(), program, args...)
				cmd.Env = append(os.Environ(), "PACKER_PLUGIN_PATH="+plugins, "CHECKPOINT_DISABLE=1", "PACKER_NO_COLOR=1", "PACKER_CONFIG_DIR="+plugins,
					"HOLDFAST_TEST_DISK="+disk, "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", env)
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			write := func(extra string) {
				text := strings.NewReplacer("ADDRESS", p.URL, "EXTRA", extra).Replace(template)
				for file, data := range map[string]string{"demo.pkr.hcl": text, "compose.yaml": "x", "x.lock": "x"} {
					if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			write(`ami_users = ["nobody"]`)
			if out, err := packer("plugins", "install", "--path", self, "github.com/holdfast/holdfast"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if out, err := packer("validate", "."); err == nil || !strings.Contains(out, `ami_users: "nobody" is not an account`) {
				t.Errorf("validate: %v\n%s", err, out)
			}
			write("")
			for _, args := range [][]string{{"init", "."}, {"validate", "."}, {"build", "."}} {
				out, err := packer(args...)
				if err != nil {
					t.Fatalf("packer %v: %v\n%s", args, err, out)
				}
				t.Logf("packer %v\n%s", args, out)
			}
			p.only(t, 2, 2)
			var m struct {
				Builds []struct {
					ArtifactID string `json:"artifact_id"`
				} `json:"builds"`
			}
			b, err := os.ReadFile("packer-manifest.json")
			if err == nil {
				err = json.Unmarshal(b, &m)
			}
			if err != nil {
				t.Fatal(err)
			}
			ids := ""
			for _, im := range p.Images() {
				ids += fmt.Sprintf("%s:%s,", im.Region, im.ID)
			}
			if len(m.Builds) != 1 || len(m.Builds[0].ArtifactID) != len(ids)-1 || !strings.HasPrefix(m.Builds[0].ArtifactID, "eu-central-1:ami-") {
				t.Errorf("the manifest has %s, made were %s", b, ids)
			}
			for _, file := range []string{"out/disk.raw", "out/demo-1.0.0.ami.json"} {
				if _, err := os.Stat(file); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
