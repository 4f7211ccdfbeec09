// SPDX-License-Identifier: Apache-2.0

//go:build engine

package aws

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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

// packerIn is a folder with a template for the account and this test binary as
// the plugin; extra are more options of the post-processor.
type packerIn struct {
	program, plugins, disk string
	env                    string
}

func newPacker(t *testing.T, env string) *packerIn {
	t.Helper()
	program, err := exec.LookPath("packer")
	if err != nil {
		t.Fatal("packer is not on the PATH: run `make test-engine`, which builds it, or install 1.11 or newer")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in := &packerIn{program: program, disk: part(t, 64, nil), plugins: t.TempDir(), env: env}
	t.Chdir(t.TempDir())
	if out, err := in.command(t.Context(), "plugins", "install", "--path", self, "github.com/holdfast/holdfast").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return in
}

func (in *packerIn) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, in.program, args...)
	cmd.Env = append(os.Environ(), "PACKER_PLUGIN_PATH="+in.plugins, "CHECKPOINT_DISABLE=1", "PACKER_NO_COLOR=1", "PACKER_CONFIG_DIR="+in.plugins,
		"HOLDFAST_TEST_DISK="+in.disk, "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", in.env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func (in *packerIn) write(t *testing.T, p *Proxy, extra string) {
	t.Helper()
	text := strings.NewReplacer("ADDRESS", p.URL, "EXTRA", extra).Replace(template)
	for file, data := range map[string]string{"demo.pkr.hcl": text, "compose.yaml": "x", "x.lock": "x"} {
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Packer itself, in both of its encodings: the images are made, the manifest
// has their ids, and the output folder is still there.
func TestPacker(t *testing.T) {
	for name, env := range map[string]string{"protobuf": "PACKER_FORCE_GOB=", "gob": "PACKER_FORCE_GOB=1"} {
		t.Run(name, func(t *testing.T) {
			p, packer := account(t), newPacker(t, env)
			packer.write(t, p, `ami_users = ["nobody"]`)
			if out, err := packer.command(t.Context(), "validate", ".").CombinedOutput(); err == nil || !strings.Contains(string(out), `ami_users: "nobody" is not an account`) {
				t.Errorf("validate: %v\n%s", err, out)
			}
			packer.write(t, p, "")
			for _, args := range [][]string{{"init", "."}, {"validate", "."}, {"build", "."}} {
				out, err := packer.command(t.Context(), args...).CombinedOutput()
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
			ids := map[string]string{}
			for _, im := range p.Images() {
				ids[im.Region] = im.ID
			}
			if want := "eu-central-1:" + ids["eu-central-1"] + ",us-east-1:" + ids["us-east-1"]; len(m.Builds) != 1 || m.Builds[0].ArtifactID != want {
				t.Errorf("the manifest has %s, made was %s", b, want)
			}
			for _, file := range []string{"out/disk.raw", "out/demo-1.0.0.ami.json"} {
				if _, err := os.Stat(file); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// However Packer ends in the middle of an upload, the plugin leaves nothing.
func TestPackerEnds(t *testing.T) {
	for name, kill := range map[string]func(pid int){
		"SIGINT to the group":  func(pid int) { syscall.Kill(-pid, syscall.SIGINT) },
		"SIGKILL to the outer": func(pid int) { syscall.Kill(pid, syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			p, packer := account(t), newPacker(t, "")
			packer.write(t, p, "")
			cmd := packer.command(t.Context(), "build", ".")
			gone := make(chan struct{})
			var kills, deleted sync.Once
			p.Done = func(r *Request) {
				if r.Op == "PutSnapshotBlock" && r.N == 10 {
					kills.Do(func() { kill(cmd.Process.Pid) })
				}
				if r.Op == "DeleteSnapshot" {
					deleted.Do(func() { close(gone) })
				}
			}
			// No pipe: the plugin may outlive the Packer that is killed.
			if err := cmd.Run(); err == nil {
				t.Error("packer reported success")
			}
			select {
			case <-gone:
			case <-time.After(time.Minute):
				t.Error("the snapshot was not deleted within a minute of the end of packer")
			}
			p.only(t, 0, 0)
		})
	}
}
