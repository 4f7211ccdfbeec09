// SPDX-License-Identifier: Apache-2.0

package postova

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2/hcldec"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/packer/registry/image"
	"github.com/hashicorp/packer-plugin-sdk/plugin"
	pluginversion "github.com/hashicorp/packer-plugin-sdk/version"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/packerplugin"
	"github.com/holdfast/holdfast/builder/target"
)

// TestMain lets the test binary be the plugin too: Packer runs it like the
// shipped one, with a builder that only writes files.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "describe" || os.Args[1] == "start") {
		set := plugin.NewSet()
		set.SetVersion(pluginversion.NewPluginVersion("0.1.0", "", ""))
		set.RegisterBuilder(plugin.DEFAULT_NAME, fakeBuilder{})
		set.RegisterPostProcessor("ova", New())
		if err := set.RunCommand(os.Args[1:]...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeBuilder writes an output folder.
type fakeBuilder struct{}

func (fakeBuilder) ConfigSpec() hcldec.ObjectSpec                        { return hcldec.ObjectSpec{} }
func (fakeBuilder) Prepare(...any) (generated, warn []string, err error) { return nil, nil, nil }
func (fakeBuilder) Run(context.Context, packersdk.Ui, packersdk.Hook) (packersdk.Artifact, error) {
	dir, err := filepath.Abs("out")
	if err != nil {
		return nil, err
	}
	return baked(dir), bake(dir)
}

// bake makes dir an output folder with a disk of 8 MiB.
func bake(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	const size = 8 << 20
	disk := filepath.Join(dir, target.DiskName)
	if err := os.WriteFile(disk, []byte("some data"), 0o644); err != nil {
		return err
	}
	if err := os.Truncate(disk, size); err != nil {
		return err
	}
	m := builder.Manifest{Format: 1, Name: "demo", Version: "1.0.0", RootHash: strings.Repeat("ab", 32),
		Files: []builder.ManifestFile{{Name: target.DiskName, Bytes: size, SHA256: strings.Repeat("cd", 32)}}}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, builder.ManifestName), b, 0o644)
}

// baked is an artifact like that of source "holdfast".
func baked(dir string) *packersdk.MockArtifact {
	return &packersdk.MockArtifact{BuilderIdValue: packerplugin.BuilderID, IdValue: "demo-1.0.0", StateValues: map[string]any{"output": dir},
		FilesValue: []string{filepath.Join(dir, "disk.raw")}}
}

func testUI(out *strings.Builder) packersdk.Ui {
	return &packersdk.BasicUi{Reader: strings.NewReader(""), Writer: out, ErrorWriter: out, PB: &packersdk.NoopProgressTracker{}}
}

func TestPostProcess(t *testing.T) {
	dir := t.TempDir()
	if err := bake(dir); err != nil {
		t.Fatal(err)
	}
	p := New()
	if err := p.Configure(map[string]any{"name": "box", "disk_size": "10GiB", "networks": []string{"LAN"}, "properties": map[string]string{"hostname": "box"}, "secure_boot": true}); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	a, keep, force, err := p.PostProcess(t.Context(), testUI(&out), baked(dir))
	if err != nil {
		t.Fatal(err)
	}
	if !keep || !force {
		t.Error("the input may go, and the OVA with it")
	}
	file := filepath.Join(dir, "demo-1.0.0.ova")
	if got := strings.Join(a.Files(), " "); got != file+" "+file+".json" || a.BuilderId() != BuilderID || a.Id() != "demo-1.0.0.ova" {
		t.Errorf("artifact %s %s with %s", a.BuilderId(), a.Id(), got)
	}
	for _, f := range a.Files() {
		if _, err := os.Stat(f); err != nil {
			t.Error(err)
		}
	}
	record, err := target.ReadRecord(file)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"path": file, "sha256": record.SHA256, "root_hash": strings.Repeat("ab", 32), "disk_bytes": "10737418240", "none": nil} {
		if got := a.State(key); got != want {
			t.Errorf("State(%s) is %v, want %v", key, got, want)
		}
	}
	img, ok := a.State(image.ArtifactStateURI).(*image.Image)
	if !ok || img.Validate() != nil || img.ImageID != "demo-1.0.0.ova" || img.Labels["release"] != "demo-1.0.0" {
		t.Errorf("HCP metadata: %+v", img)
	}
	for _, want := range []string{"WARNING: secure_boot: ", "made, ", "2 processors, 4.0 GiB of memory and a disk of 10.0 GiB"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out.String())
		}
	}
	if err := a.Destroy(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("Destroy leaves %v, %v", entries, err)
	}
}

func TestPostProcessRefuses(t *testing.T) {
	var out strings.Builder
	for _, a := range []*packersdk.MockArtifact{
		{BuilderIdValue: "mitchellh.amazonebs"}, {BuilderIdValue: BuilderID, StateValues: map[string]any{"output": t.TempDir()}}, {BuilderIdValue: packerplugin.BuilderID},
	} {
		if _, _, _, err := New().PostProcess(t.Context(), testUI(&out), a); err == nil || !strings.Contains(err.Error(), "make it the first post-processor") {
			t.Errorf("%s: %v", a.BuilderIdValue, err)
		}
	}
	if _, _, _, err := New().PostProcess(t.Context(), testUI(&out), baked(t.TempDir())); err == nil || !strings.Contains(err.Error(), "no bake made it") {
		t.Error(err)
	}
	dir := t.TempDir()
	if err := bake(dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, _, err := New().PostProcess(ctx, testUI(&out), baked(dir)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Each bad key has one error that starts with the key.
func TestConfigureRefuses(t *testing.T) {
	for _, c := range []struct {
		key   string
		value any
		want  string
	}{
		{"file", "x.vmdk", "file: \"x.vmdk\" is not the name of an OVA"},
		{"size", "XXL", "size: size \"XXL\" is not known"},
		{"cpus", -1, "cpus: -1 is out of range"},
		{"memory", 1023, "memory: 1023 MiB will not do"},
		{"disk_size", "20GB", "disk_size: \"20GB\" is not a size"},
		{"vmx_version", "8", "vmx_version: \"vmx-8\" is not"},
		{"networks", []string{""}, "networks: "},
		{"properties", map[string]string{"x": "y"}, "properties: \"x\" is not known"},
		{"eula_file", "none", "eula_file: there is no file none"},
		{"signing_key", "none", "signing_cert: is not set"},
		{"unknown", "x", "unknown configuration key"},
	} {
		if err := New().Configure(map[string]any{c.key: c.value}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.key, err, c.want)
		}
	}
	if err := New().Configure(); err != nil {
		t.Errorf("no keys: %v", err)
	}
}
