// SPDX-License-Identifier: Apache-2.0

package postgce

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	registryimage "github.com/hashicorp/packer-plugin-sdk/packer/registry/image"
	"github.com/hashicorp/packer-plugin-sdk/rpc"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/builder/target/gce"
	"github.com/holdfast/holdfast/images/sign"
)

// baked is an artifact of the source "holdfast" over a small disk.
func baked(t *testing.T) (*packersdk.MockArtifact, string) {
	t.Helper()
	dir := t.TempDir()
	disk := make([]byte, 8<<20)
	copy(disk[1<<20:], "content")
	m, err := json.Marshal(builder.Manifest{Format: 1, Name: "demo", Version: "1.0.0", RootHash: strings.Repeat("ab", 32),
		Files: []builder.ManifestFile{{Name: "disk.raw", Bytes: int64(len(disk)), SHA256: fmt.Sprintf("%x", sha256.Sum256(disk))}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"disk.raw": disk, builder.ManifestName: m} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &packersdk.MockArtifact{BuilderIdValue: "holdfast.builder", StateValues: map[string]any{"output": dir}}, dir
}

func TestConfigureRefuses(t *testing.T) {
	for _, c := range []struct {
		config map[string]any
		want   []string
	}{
		{map[string]any{"disk_size": "20GB"}, []string{`disk_size: "20GB" is not a size`}},
		{map[string]any{"size": "XXL"}, []string{`size: size "XXL" is not known`}},
		{map[string]any{"file": "../x.tar.gz"}, []string{"file: "}},
		{map[string]any{"file": "x.zip"}, []string{"ends with .tar.gz"}},
		{map[string]any{"filee": "x"}, []string{"filee"}},
		{map[string]any{"bucket": "my-bucket"}, []string{"project_id: is not set but bucket is"}},
		{map[string]any{"project_id": "my-project"}, []string{"bucket: is not set but project_id is"}},
		{map[string]any{"project_id": "My Project", "bucket": "gs://b"}, []string{`project_id: "My Project" is not the ID`, "bucket: \"gs://b\" is an address: leave out gs://"}},
		{up("image_name", "demo-1.0.0"), []string{`image_name: "demo-1.0.0" is not allowed`}},
		{up("image_family", strings.Repeat("a", 64)), []string{"image_family: "}},
		{up("image_description", strings.Repeat("a", 2049)), []string{"image_description: has 2049 bytes"}},
		{up("image_labels", map[string]string{"A": "b"}), []string{`image_labels: "A" = "b" is not allowed`}},
		{up("image_storage_locations", []string{"eu", "us"}), []string{"image_storage_locations: 2 are given"}},
		{up("image_storage_locations", []string{"EU!"}), []string{`"EU!" is no location`}},
		{up("image_licenses", []string{"mit"}), []string{`image_licenses: "mit"`}},
		{up("image_guest_os_features", []string{"gvnic"}), []string{`image_guest_os_features: "gvnic"`}},
		{up("image_kms_key", "mine"), []string{`image_kms_key: "mine"`}},
		{up("image_kms_service_account", "a@b"), []string{"and image_kms_key with it"}},
		{up("image_members", []string{"jo@example.com"}), []string{`image_members: "jo@example.com" is nobody`}},
		{up("image_members", []string{"allAuthenticatedUsers"}), []string{"set image_public instead"}},
		{up("gcs_object_name", "/x"), []string{`gcs_object_name: "/x"`}},
		{up("compute_endpoint", "compute.example.com"), []string{`compute_endpoint: "compute.example.com" is no address`}},
		{up("storage_endpoint", "ftp://x"), []string{"storage_endpoint: "}},
		{up("timeout", "-1s"), []string{"timeout: "}},
		{up("timeout", "soon"), []string{"soon"}},
		{up("access_token", "a", "credentials_json", "{}"), []string{"set one of credentials_file"}},
		{up("impersonate_service_account", "me"), []string{"impersonate_service_account: \"me\""}},
	} {
		err := New().Configure(c.config)
		if err == nil {
			t.Errorf("%v is accepted", c.config)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v: %v, want %q", c.config, err, w)
			}
		}
	}
}

// up is a configuration that uploads, with some keys more.
func up(more ...any) map[string]any {
	c := map[string]any{"project_id": "my-project", "bucket": "my-bucket"}
	for i := 0; i < len(more); i += 2 {
		c[more[i].(string)] = more[i+1]
	}
	return c
}

// Each option arrives where it belongs.
func TestConfigure(t *testing.T) {
	p := New()
	if err := p.Configure(up("disk_size", "30GiB", "size", "M", "file", "a.tar.gz", "gcs_object_name", "o.tar.gz", "skip_clean", true,
		"image_name", "n", "image_description", "d", "image_family", "f", "image_labels", map[string]string{"a": "b"},
		"image_storage_locations", []string{"eu"}, "image_licenses", []string{"projects/p/global/licenses/l"}, "image_guest_os_features", []string{"SEV_CAPABLE"},
		"image_kms_key", "projects/p/locations/l/keyRings/r/cryptoKeys/k", "image_kms_service_account", "s@example.com", "overwrite", true,
		"image_members", []string{"user:jo@example.com"}, "image_public", true, "credentials_file", "/k.json",
		"impersonate_service_account", "i@example.com", "storage_endpoint", "http://s", "compute_endpoint", "http://c", "timeout", "1h", "state_timeout", "5m")); err != nil {
		t.Fatal(err)
	}
	want := gce.Config{File: "a.tar.gz", DiskSize: 30 << 30, Size: "M", Upload: &gce.Upload{
		Project: "my-project", Bucket: "my-bucket", Object: "o.tar.gz", KeepObject: true, ImageName: "n", Family: "f", Description: "d",
		Labels: map[string]string{"a": "b"}, StorageLocations: []string{"eu"}, Licenses: []string{"projects/p/global/licenses/l"}, Features: []string{"SEV_CAPABLE"},
		KMSKey: "projects/p/locations/l/keyRings/r/cryptoKeys/k", KMSServiceAccount: "s@example.com", Overwrite: true,
		Members: []string{"user:jo@example.com"}, Public: true, Credentials: gce.Credentials{File: "/k.json", Impersonate: "i@example.com"},
		StorageEndpoint: "http://s", ComputeEndpoint: "http://c", Timeout: time.Hour, StateTimeout: 5 * time.Minute,
	}}
	if !reflect.DeepEqual(p.target, want) {
		t.Errorf("target %+v %+v, want %+v", p.target, p.target.Upload, want.Upload)
	}
	for _, c := range []map[string]any{{}, up("skip_upload", true), {"bucket": "x", "skip_upload": true}} {
		if err := p.Configure(c); err != nil || p.target.Upload != nil {
			t.Errorf("%v: an upload, or %v", c, err)
		}
	}
}

func TestSpecHasEveryKey(t *testing.T) {
	spec := New().ConfigSpec()
	for _, key := range keys() {
		if spec[key] == nil {
			t.Errorf("the generated spec lacks %s: run go generate", key)
		}
	}
}

func keys() (keys []string) {
	for f := range reflect.TypeFor[Config]().Fields() {
		if key := f.Tag.Get("mapstructure"); key != "" && !strings.HasPrefix(key, ",") {
			keys = append(keys, key)
		}
	}
	return keys
}

// remote puts a post-processor behind Packer's own connection.
func remote(t *testing.T, p packersdk.PostProcessor) packersdk.PostProcessor {
	t.Helper()
	near, far := net.Pipe()
	server, err := rpc.NewServer(far)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.RegisterPostProcessor(p); err != nil {
		t.Fatal(err)
	}
	go server.Serve()
	client, err := rpc.NewClient(near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client.PostProcessor()
}

func TestFileThroughPacker(t *testing.T) {
	p := remote(t, New())
	if err := p.Configure(map[string]any{"disk_size": "2GiB"}); err != nil {
		t.Fatal(err)
	}
	in, dir := baked(t)
	ui := packersdk.TestUi(t)
	a, keep, force, err := p.PostProcess(t.Context(), ui, in)
	if err != nil || !keep || !force {
		t.Fatalf("keep %v, forced %v, %v", keep, force, err)
	}
	path := filepath.Join(dir, "demo-1.0.0-gce.tar.gz")
	if !slices.Equal(a.Files(), []string{path, path + ".json"}) || a.Id() != "demo-1.0.0-gce.tar.gz" || a.BuilderId() != BuilderID {
		t.Errorf("artifact %s %s %v", a.BuilderId(), a.Id(), a.Files())
	}
	if a.State("path") != path || a.State("root_hash") != strings.Repeat("ab", 32) || a.State(registryimage.ArtifactStateURI) != nil {
		t.Errorf("state %v", a.State("path"))
	}
	if !strings.Contains(a.String(), "a disk of 2.0 GiB") {
		t.Errorf("shown as %q", a.String())
	}
	if err := a.Destroy(); err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files() {
		if _, err := os.Stat(f); err == nil {
			t.Errorf("%s is still there", f)
		}
	}
}

func TestPostProcessRefuses(t *testing.T) {
	in, _ := baked(t)
	in.BuilderIdValue = "other.builder"
	p := New()
	if _, _, _, err := p.PostProcess(t.Context(), packersdk.TestUi(t), in); err == nil || !strings.Contains(err.Error(), `the source "holdfast"`) {
		t.Errorf("an artifact of another builder: %v", err)
	}
	in, dir := baked(t)
	if err := p.Configure(up("secure_boot", true)); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := p.PostProcess(t.Context(), packersdk.TestUi(t), in); err == nil || !strings.Contains(err.Error(), "secure_boot: ") {
		t.Errorf("no signing.crt: %v", err)
	}
	if err := sign.MakePair(filepath.Join(dir, "key"), filepath.Join(dir, "signing.crt"), "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	if set, err := p.config.keys(dir); err != nil || len(set.DBs) != 1 || set.PK.Type != "X509" || len(set.PK.Content) == 0 {
		t.Errorf("keys %+v, %v", set, err)
	}
	p.config = Config{}
	if set, err := p.config.keys(dir); set != nil || err != nil {
		t.Errorf("keys %+v without being asked, %v", set, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Configure(map[string]any{}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := p.PostProcess(ctx, packersdk.TestUi(t), in); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*gce*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// What Packer's registry client gets, over its own connection.
func TestRegistryMetadata(t *testing.T) {
	near, far := net.Pipe()
	server, err := rpc.NewServer(far)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.RegisterArtifact(&artifact{result: gce.Result{Path: "/x/a.tar.gz", Record: target.Record{File: "a.tar.gz", RootHash: "beef"},
		Image: &gce.Image{Name: "demo-1-0-0", Project: "my-project", SelfLink: "https://x/demo", Locations: []string{"eu"}, Bucket: "b", Object: "o"}}}); err != nil {
		t.Fatal(err)
	}
	go server.Serve()
	client, err := rpc.NewClient(near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	a := client.Artifact()
	text := fmt.Sprint(a.State(registryimage.ArtifactStateURI))
	for _, want := range []string{"ImageID:demo-1-0-0", "ProviderName:gce", "ProviderRegion:eu", "project_id:my-project", "root_hash:beef"} {
		if !strings.Contains(text, want) {
			t.Errorf("metadata %s lacks %s", text, want)
		}
	}
	if a.Id() != "demo-1-0-0" || a.State("gcs_object") != "gs://b/o" || a.State("self_link") != "https://x/demo" {
		t.Errorf("%s %v", a.Id(), a.State("gcs_object"))
	}
	if !strings.HasPrefix(a.String(), "image demo-1-0-0 in the project my-project, made of /x/a.tar.gz") {
		t.Errorf("shown as %q", a.String())
	}
}

// The reference of options in docs/partials is generated from the comments of
// Config, by packer-sdc struct-markdown.
func TestPartialsAreCurrent(t *testing.T) {
	b, err := os.ReadFile("../../../docs/partials/builder/packerplugin/gce/Config-not-required.mdx")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys() {
		if !strings.Contains(string(b), "\n- `"+key+"` (") {
			t.Errorf("docs/partials lack %s: run go generate", key)
		}
	}
}
