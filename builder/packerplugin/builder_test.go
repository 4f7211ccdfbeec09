// SPDX-License-Identifier: Apache-2.0

package packerplugin

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/holdfast/holdfast/builder"
)

// sourceIn makes a folder that the returned configuration fits.
func sourceIn(t *testing.T) map[string]any {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"compose.yaml": "x", "x.lock": "x", "key.pem": "x", "crt.pem": "x", "layout/oci-layout": "{}", "other/file": "x"} {
		os.MkdirAll(filepath.Dir(name), 0o755)
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]any{"name": "demo", "version": "1.0.0", "stack": "compose.yaml", "lock": "x.lock"}
}

func TestPrepareDefaults(t *testing.T) {
	b := New(fakeBake, builder.OS{Packages: []string{"systemd"}})
	_, warnings, err := b.Prepare(sourceIn(t))
	if err != nil {
		t.Fatal(err)
	}
	c := b.config
	if c.Output != "dist/demo-1.0.0" || !c.MakeKey || c.SigningKey != "demo-signing.key" || c.SlotSize != 0 {
		t.Errorf("defaults: %+v", c)
	}
	if len(c.OS.Packages) != 1 {
		t.Error("the operating system's files did not reach the bake")
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "demo") {
		t.Errorf("no warning about the demo key: %q", warnings)
	}
}

func TestPrepareAll(t *testing.T) {
	in := sourceIn(t)
	for k, v := range map[string]any{
		"layouts": []string{"layout"}, "archive": "other", "mirror": "file:///srv/debian", "slot_size": "768MiB", "disk_size": "10GiB",
		"extra_packages": []string{"g++", "htop"}, "signing_key": "key.pem", "signing_cert": "crt.pem", "output": "out", "cache": "cache", "factory": "seed",
		"epoch": 3, "min_from": "0.9.0", "update_source": "https://updates.test/demo", "update_channel": "beta", "gate_deadline": "20m", "gate_window": "30s",
		"trust_root": "key.pem",
	} {
		in[k] = v
	}
	b := New(fakeBake, builder.OS{})
	_, warnings, err := b.Prepare(in)
	if err != nil || len(warnings) != 0 {
		t.Fatalf("%v, warnings %q", err, warnings)
	}
	if c := b.config; c.SlotSize != 768<<20 || c.DiskSize != 10<<30 || c.MakeKey || c.Output != "out" || c.Cache != "cache" || c.Archive != "other" || c.Factory != builder.Seed ||
		c.Epoch != 3 || c.MinFrom != "0.9.0" || c.UpdateSource != "https://updates.test/demo" || c.UpdateChannel != "beta" ||
		c.GateDeadline != 20*time.Minute || c.GateWindow != 30*time.Second || c.TrustRoot != "key.pem" {
		t.Errorf("%+v", c)
	}
}

// Each bad key has one line that starts with the key and says what to do.
func TestPrepareRefuses(t *testing.T) {
	for _, tc := range []struct {
		key   string
		value any
		want  string
	}{
		{"name", "Demo!", "name: \"Demo!\" is not a release name: use"},
		{"name", "", "name: \"\" is not a release name"},
		{"name", strings.Repeat("a", 41), "is not a release name"},
		{"version", "v1.0.0", "version: \"v1.0.0\" is not a semantic version: write it like"},
		{"version", "1.0", "version: \"1.0\" is not"},
		{"version", "1.0.0+x", "version: "},
		{"stack", "", "stack: is not set: name the Compose file"},
		{"stack", "none.yaml", "stack: there is no file none.yaml"},
		{"lock", "none.lock", "lock: there is no file none.lock: make it with `holdfast-release lock --stack compose.yaml --lock none.lock`"},
		{"lock", "", "lock: there is no file holdfast.lock"},
		{"layouts", []string{"layout", "other"}, "layouts[1]: other is not an OCI layout"},
		{"archive", "none", "archive: there is no folder none"},
		{"mirror", "example.org/debian", "mirror: \"example.org/debian\" is not the address"},
		{"extra_packages", []string{"ok1", "-bad"}, "extra_packages[1]: \"-bad\" is not the name"},
		{"slot_size", "768MB", "slot_size: \"768MB\" is not a size: write"},
		{"slot_size", "0MiB", "slot_size: "},
		{"disk_size", "65TiB", "disk_size: \"65TiB\" is more than"},
		{"disk_size", "12", "disk_size: \"12\" is not a size"},
		{"factory", "none", "factory: \"none\" is neither \"embedded\" nor \"seed\""},
		{"epoch", -1, "epoch: -1 is not 0 to 1000000"},
		{"min_from", "1.0.1", "min_from: 1.0.1 is newer than the release, 1.0.0"},
		{"update_source", "a b", "update_source: "},
		{"update_channel", "A", "update_channel: "},
		{"gate_deadline", "48h", "gate_deadline: 48h0m0s must be"},
		{"gate_window", "15m", "gate_window: it must be shorter than gate_deadline"},
		{"trust_root", "none.json", "trust_root: there is no file none.json: make it with `holdfast-release keys init`"},
		{"signing_key", "key.pem", "signing_cert: is not set but signing_key is"},
		{"signing_cert", "crt.pem", "signing_key: is not set but signing_cert is"},
		{"output", "other", "output: other exists and is not an earlier bake"},
		{"output", "x.lock", "output: x.lock is not a folder"},
	} {
		t.Run(tc.key, func(t *testing.T) {
			in := sourceIn(t)
			in[tc.key] = tc.value
			_, _, err := New(fakeBake, builder.OS{}).Prepare(in)
			if err == nil {
				t.Fatalf("%s = %v was accepted", tc.key, tc.value)
			}
			if got := err.Error(); !strings.Contains(got, tc.want) || !strings.Contains(got, "1 error occurred") && !strings.Contains(got, "1 error(s)") {
				t.Errorf("got %q, want one error with %q", got, tc.want)
			}
		})
	}
}

func TestPrepareListsEveryBadKey(t *testing.T) {
	_, _, err := New(fakeBake, builder.OS{}).Prepare(map[string]any{"slot_size": "x"})
	for _, key := range []string{"name:", "version:", "stack:", "slot_size:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("no %s in %v", key, err)
		}
	}
}

func TestPrepareMissingKeyFiles(t *testing.T) {
	in := sourceIn(t)
	in["signing_key"], in["signing_cert"] = "no.key", "no.crt"
	_, _, err := New(fakeBake, builder.OS{}).Prepare(in)
	if err == nil || !strings.Contains(err.Error(), "signing_key: there is no file no.key") || !strings.Contains(err.Error(), "signing_cert: there is no file no.crt") {
		t.Errorf("a mistyped key path gave %v", err)
	}
}

func testUI(out io.Writer) packersdk.Ui {
	return &packersdk.BasicUi{Reader: strings.NewReader(""), Writer: out, ErrorWriter: out, PB: &packersdk.NoopProgressTracker{}}
}

func TestRun(t *testing.T) {
	b := New(fakeBake, builder.OS{})
	if _, _, err := b.Prepare(sourceIn(t)); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	a, err := b.Run(t.Context(), testUI(&out), &packersdk.MockHook{})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"root file system             61.2 s    576.0 MiB\n",
		"factory                       0.0 s     80.0 MiB  cached\n",
		"WARNING: a warning\n",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no line %q in\n%s", line, out.String())
		}
	}
	if got := strings.Join(a.Files(), " "); got != "dist/demo-1.0.0/disk.raw dist/demo-1.0.0/manifest.json" {
		t.Errorf("files: %s", got)
	}
	if a.Id() != "demo-1.0.0" || a.State("root_hash") != "beef" || a.State("none") != nil {
		t.Errorf("artifact: %s %v", a.Id(), a.State("root_hash"))
	}
	if err := a.Destroy(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("dist/demo-1.0.0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Destroy left the folder: %v", err)
	}
	os.Mkdir("mine", 0o755)
	os.WriteFile("mine/file", nil, 0o644)
	if err := newArtifact(builder.Result{Output: "mine"}).Destroy(); err == nil {
		t.Error("Destroy removed a folder that no bake made")
	}
}

func TestRunCancelled(t *testing.T) {
	for _, who := range []string{"packer cancels", "packer dies"} {
		t.Run(who, func(t *testing.T) {
			in := sourceIn(t)
			started := make(chan struct{})
			b := New(func(ctx context.Context, c builder.Config, p builder.Progress) (*builder.Result, error) {
				close(started)
				<-ctx.Done()
				return nil, ctx.Err()
			}, builder.OS{})
			gone, die := context.WithCancel(t.Context())
			defer die()
			b.life.gone = gone
			if _, _, err := b.Prepare(in); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				<-started
				if who == "packer dies" {
					die()
				} else {
					cancel()
				}
			}()
			_, err := b.Run(ctx, testUI(io.Discard), &packersdk.MockHook{})
			if err == nil || !strings.Contains(err.Error(), "dist/demo-1.0.0 is as it was") {
				t.Errorf("got %v", err)
			}
			if (who == "packer dies") != errors.Is(err, ErrPackerGone) {
				t.Errorf("wrong cause: %v", err)
			}
			if err := b.life.drain(nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestParentOf(t *testing.T) {
	got, err := parentOf(os.Getpid())
	if err != nil || got != os.Getppid() {
		t.Errorf("parentOf(self) = %d, %v; want %d", got, err, os.Getppid())
	}
}
