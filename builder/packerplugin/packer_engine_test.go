// SPDX-License-Identifier: Apache-2.0

//go:build engine

package packerplugin

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
source "holdfast" "demo" {
  name    = "NAME"
  version = "1.0.0"
  stack   = "compose.yaml"
  lock    = "x.lock"
}
build {
  sources = ["source.holdfast.demo"]
  post-processor "manifest" { output = "packer-manifest.json" }
}
`

// packerIn installs this test binary as the plugin and returns what runs
// Packer in a folder with a template for a release of that name.
func packerIn(t *testing.T, name string, env ...string) func(ctx context.Context, args ...string) *exec.Cmd {
	t.Helper()
	program, err := exec.LookPath("packer")
	if err != nil {
		t.Fatal("packer is not on the PATH: run `make test-engine`, which builds it, or install 1.11 or newer")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sourceIn(t)
	plugins := t.TempDir()
	packer := func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env = append(os.Environ(), "PACKER_PLUGIN_PATH="+plugins, "CHECKPOINT_DISABLE=1", "PACKER_NO_COLOR=1", "PACKER_CONFIG_DIR="+plugins)
		cmd.Env = append(cmd.Env, env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return cmd
	}
	if err := os.WriteFile("demo.pkr.hcl", []byte(strings.ReplaceAll(template, "NAME", name)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := packer(t.Context(), "plugins", "install", "--path", self, "github.com/holdfast/holdfast").CombinedOutput(); err != nil {
		t.Fatalf("plugins install: %v\n%s", err, out)
	}
	return packer
}

// Both encodings that Packer speaks with plugins, and no network: the sandbox
// has none, as its own network namespace is empty.
func TestPackerBuild(t *testing.T) {
	for name, env := range map[string]string{"protobuf": "PACKER_FORCE_GOB=", "gob": "PACKER_FORCE_GOB=1"} {
		t.Run(name, func(t *testing.T) {
			packer := packerIn(t, "demo", env)
			for _, args := range [][]string{{"init", "."}, {"validate", "."}, {"build", "."}} {
				cmd := packer(t.Context(), args...)
				cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("packer %v: %v\n%s", args, err, out)
				}
				t.Logf("packer %v\n%s", args, out)
				if args[0] == "build" && !strings.Contains(string(out), "61.2 s    576.0 MiB") {
					t.Errorf("no step line")
				}
			}
			data, err := os.ReadFile("packer-manifest.json")
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"disk.raw", "manifest.json", `"artifact_id": "demo-1.0.0"`} {
				if !strings.Contains(string(data), want) {
					t.Errorf("the manifest post-processor did not see %s:\n%s", want, data)
				}
			}
		})
	}
}

func TestPackerValidateRefuses(t *testing.T) {
	for bad, want := range map[string]string{
		`name = "Demo!"`:        `name: "Demo!" is not a release name`,
		`slot_size = "1MB"`:     `slot_size: "1MB" is not a size`,
		`slott_size = "1MiB"`:   "slott_size",
		`layouts = "x"`:         "layouts",
		`output = "other"`:      "output: other exists and is not an earlier bake",
		`signing_key = "x.pem"`: "signing_cert: is not set",
	} {
		t.Run(bad, func(t *testing.T) {
			packer := packerIn(t, "demo")
			text := strings.ReplaceAll(template, "NAME", "demo")
			if key, _, _ := strings.Cut(bad, " "); key == "name" {
				text = strings.ReplaceAll(text, `name    = "demo"`, bad)
			} else {
				text = strings.ReplaceAll(text, `lock    = "x.lock"`, "lock    = \"x.lock\"\n"+bad)
			}
			os.WriteFile("demo.pkr.hcl", []byte(text), 0o644)
			for _, verb := range []string{"validate", "build"} {
				out, err := packer(t.Context(), verb, ".").CombinedOutput()
				if err == nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "demo.pkr.hcl") {
					t.Errorf("packer %s: %v, want %q and the file\n%s", verb, err, want, out)
				}
			}
			if _, err := os.Stat("dist"); err == nil {
				t.Error("a refused build left an output folder")
			}
		})
	}
}

// However Packer ends, the plugin and what it started end too, after the
// bake's own clean-up.
func TestPackerEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		kill func(t *testing.T, outer, plugin int)
	}{
		{"SIGINT to the group", func(t *testing.T, outer, plugin int) { syscall.Kill(-outer, syscall.SIGINT) }},
		{"SIGKILL to the outer packer", func(t *testing.T, outer, plugin int) { syscall.Kill(outer, syscall.SIGKILL) }},
		{"SIGKILL to the inner packer", func(t *testing.T, outer, plugin int) {
			inner, err := parentOf(plugin)
			if err != nil || inner == outer || inner <= 1 {
				t.Fatalf("the plugin's parent is %d, %v", inner, err)
			}
			syscall.Kill(inner, syscall.SIGKILL)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			packer := packerIn(t, "hang")
			cmd := packer(t.Context(), "build", ".")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd.Stdout, cmd.Stderr = w, w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			var plugin, child int
			for lines := bufio.NewScanner(r); child == 0; {
				if !lines.Scan() {
					t.Fatal("packer ended before the bake hung")
				}
				if _, rest, ok := strings.Cut(lines.Text(), "hanging "); ok {
					if _, err := fmt.Sscan(rest, &plugin, &child); err != nil {
						t.Fatal(err)
					}
				}
			}
			// The children of the plugin are not of Packer's process group
			// in a real bake; here SIGINT may end the sleep itself.
			ends := []unix.PollFd{pidfd(t, plugin), pidfd(t, child)}
			tc.kill(t, cmd.Process.Pid, plugin)
			for i, what := range []string{"the plugin", "its child"} {
				n, err := unix.Poll(ends[i:i+1], int((30 * time.Second).Milliseconds()))
				if err != nil || n != 1 {
					t.Errorf("%s did not end within 30 s of %s", what, tc.name)
				}
			}
			// Packer 1.16 itself returns 0 when its inner process is killed.
			if err := cmd.Wait(); err == nil && tc.name != "SIGKILL to the inner packer" {
				t.Error("packer reported success")
			}
			if _, err := os.Stat("cleaned"); err != nil {
				t.Errorf("the bake was not given its clean-up: %v", err)
			}
		})
	}
}

func pidfd(t *testing.T, pid int) unix.PollFd {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
}
