// SPDX-License-Identifier: Apache-2.0

package postami

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	registryimage "github.com/hashicorp/packer-plugin-sdk/packer/registry/image"
	"github.com/hashicorp/packer-plugin-sdk/rpc"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/target/ami"
	"github.com/holdfast/holdfast/images/sign"
	"github.com/holdfast/holdfast/images/uefivars"
)

// baked is an artifact of the source "holdfast" over a small disk.
func baked(t *testing.T) (*packersdk.MockArtifact, string) {
	t.Helper()
	dir := t.TempDir()
	m, err := json.Marshal(builder.Manifest{Format: 1, Name: "demo", Version: "1.0.0", RootHash: strings.Repeat("ab", 32),
		Files: []builder.ManifestFile{{Name: "disk.raw", Bytes: 8 << 20, SHA256: strings.Repeat("cd", 32)}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"disk.raw": make([]byte, 8<<20), builder.ManifestName: m} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &packersdk.MockArtifact{BuilderIdValue: "holdfast.builder", StateValues: map[string]any{"output": dir}}, dir
}

func TestConfigureRefuses(t *testing.T) {
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{"ami_name": "a"}, `ami_name: "a" is not a name`},
		{map[string]any{"ami_nam": "a"}, "ami_nam"},
		{map[string]any{"imds_support": "v1.0"}, "imds_support: \"v1.0\" is not v2.0"},
		{map[string]any{"uefi_data": "QU1aTlVFRkk=", "secure_boot": true}, "uefi_data: is there and secure_boot too"},
		{map[string]any{"copy_timeout": "-1s"}, "copy_timeout: "},
		{map[string]any{"copy_timeout": "soon"}, "soon"},
		{map[string]any{"volume_size": "big"}, "big"},
		{map[string]any{"region": "x", "ami_users": []string{"y"}}, "2 errors occurred"},
	} {
		if err := New().Configure(c.config); err == nil || !strings.Contains(err.Error(), c.want) && !strings.Contains(err.Error(), strings.Replace(c.want, "errors occurred", "error(s) occurred", 1)) {
			t.Errorf("%v: %v, want %q", c.config, err, c.want)
		}
	}
}

// Each option arrives where it belongs.
func TestConfigure(t *testing.T) {
	p := New()
	user := []string{"123456789012"}
	if err := p.Configure(map[string]any{
		"region": "eu-central-1", "profile": "p", "access_key": "a", "secret_key": "s", "token": "t",
		"assume_role":         map[string]any{"role_arn": "arn:aws:iam::123456789012:role/r", "session_name": "n", "external_id": "e"},
		"custom_endpoint_ec2": "http://a", "custom_endpoint_ebs": "http://b", "skip_region_validation": true,
		"ami_name": "demo", "ami_description": "d", "tags": map[string]string{"a": "b"}, "snapshot_tags": map[string]string{"c": "d"},
		"force_deregister": true, "force_delete_snapshot": true, "deprecate_at": "2030-01-02T03:04:05Z",
		"volume_size": 40, "size": "M", "volume_type": "gp3", "iops": 4000, "throughput": 200, "delete_on_termination": false,
		"ami_regions": []string{"us-east-1"}, "ami_users": user, "snapshot_users": user,
		"encrypt_boot": true, "kms_key_id": "arn:aws:kms:eu-central-1:123456789012:key/1", "region_kms_key_ids": map[string]string{"us-east-1": "alias/x"},
		"parent_snapshot_id": "last", "imds_support": "v2.0", "cache": "/c", "snapshot_timeout": "1m", "image_timeout": "2m", "copy_timeout": "3m",
	}); err != nil {
		t.Fatal(err)
	}
	want := ami.Options{
		Access: ami.Access{Region: "eu-central-1", Profile: "p", AccessKey: "a", SecretKey: "s", Token: "t", RoleARN: "arn:aws:iam::123456789012:role/r",
			RoleSession: "n", ExternalID: "e", EC2: "http://a", EBS: "http://b", AnyRegion: true},
		Name: "demo", Description: "d", Tags: map[string]string{"a": "b"}, SnapshotTags: map[string]string{"c": "d"},
		ForceDeregister: true, ForceDeleteSnapshot: true, DeprecateAt: "2030-01-02T03:04:05Z",
		VolumeGiB: 40, Size: "M", VolumeType: "gp3", IOPS: 4000, Throughput: 200, KeepVolume: true,
		Regions: []string{"us-east-1"}, Users: user, SnapshotUsers: user,
		Encrypt: true, KMSKey: "arn:aws:kms:eu-central-1:123456789012:key/1", RegionKMSKeys: map[string]string{"us-east-1": "alias/x"},
		Parent: "last", Cache: "/c", Patience: ami.Patience{Snapshot: time.Minute, Image: 2 * time.Minute, Copy: 3 * time.Minute},
	}
	if !reflect.DeepEqual(p.options, want) {
		t.Errorf("options\n%+v\nwant\n%+v", p.options, want)
	}
	if err := p.Configure(map[string]any{"ami_groups": []string{"all"}, "snapshot_groups": []string{"all"}, "skip_create_ami": false}); err != nil || p.options.KeepVolume || len(p.options.Groups) != 1 {
		t.Errorf("%+v, %v", p.options, err)
	}
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

// Without an upload nobody is asked, and the input stays whatever is said.
func TestSkipUpload(t *testing.T) {
	p := remote(t, New())
	if err := p.Configure(map[string]any{"skip_upload": true, "ami_name": "demo x", "ami_regions": []string{"us-east-1"}, "region": "eu-central-1"}); err != nil {
		t.Fatal(err)
	}
	in, _ := baked(t)
	a, keep, force, err := p.PostProcess(t.Context(), packersdk.TestUi(t), in)
	if err != nil || !keep || !force {
		t.Fatalf("keep %v, forced %v, %v", keep, force, err)
	}
	if a.Id() != "demo-1.0.0" || len(a.Files()) != 0 || a.BuilderId() != BuilderID || a.State("root_hash") != strings.Repeat("ab", 32) || a.State(registryimage.ArtifactStateURI) != nil {
		t.Errorf("artifact %s %s %v", a.BuilderId(), a.Id(), a.Files())
	}
	if err := a.Destroy(); err != nil {
		t.Error(err)
	}
}

func TestPostProcessRefuses(t *testing.T) {
	for _, v := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(v, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	in, dir := baked(t)
	for _, c := range []struct {
		config map[string]any
		from   string
		want   string
	}{
		{map[string]any{}, "other.builder", `the source "holdfast"`},
		{map[string]any{"region": "eu-central-1"}, "holdfast.builder", "no AWS credentials: set AWS_ACCESS_KEY_ID"},
		{map[string]any{"volume_size": 1, "size": "XS", "region": "eu-central-1", "secure_boot": true}, "holdfast.builder", "secure_boot: "},
	} {
		p := New()
		c.config["cache"] = t.TempDir()
		if err := p.Configure(c.config); err != nil {
			t.Fatal(err)
		}
		in.BuilderIdValue = c.from
		if _, keep, _, err := p.PostProcess(t.Context(), packersdk.TestUi(t), in); err == nil || !keep || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.config, err, c.want)
		}
	}
	if err := sign.MakePair(filepath.Join(dir, "key"), filepath.Join(dir, "signing.crt"), "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	c := Config{SecureBoot: true}
	text, err := c.uefiData(dir)
	if err != nil {
		t.Fatal(err)
	}
	if vars, err := uefivars.DecodeAWS(text); err != nil || len(vars) < 3 {
		t.Errorf("%d variables, %v", len(vars), err)
	}
	if errs := (ami.Options{UefiData: text}).Check(); len(errs) > 0 {
		t.Error(errs)
	}
}

// What Packer and its registry client get, over Packer's own connection.
func TestArtifact(t *testing.T) {
	near, far := net.Pipe()
	server, err := rpc.NewServer(far)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.RegisterArtifact(&artifact{result: ami.Result{Name: "demo", Release: "demo-1.0.0", RootHash: "beef", DiskSHA256: "cafe", File: "/x/demo-1.0.0.ami.json",
		Images: []ami.Image{{Region: "eu-central-1", ID: "ami-1", Snapshot: "snap-1"}, {Region: "us-east-1", ID: "ami-2", Snapshot: "snap-2"}}}}); err != nil {
		t.Fatal(err)
	}
	go server.Serve()
	client, err := rpc.NewClient(near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	a := client.Artifact()
	if a.Id() != "eu-central-1:ami-1,us-east-1:ami-2" || !reflect.DeepEqual(a.Files(), []string{"/x/demo-1.0.0.ami.json"}) || a.State("sha256") != "cafe" {
		t.Errorf("artifact %s %v", a.Id(), a.Files())
	}
	if want := "demo in AWS (root hash beef):\neu-central-1: ami-1 snap-1\nus-east-1: ami-2 snap-2"; a.String() != want {
		t.Errorf("shown as %q", a.String())
	}
	text := fmt.Sprint(a.State(registryimage.ArtifactStateURI))
	for _, want := range []string{"ImageID:ami-1", "ImageID:ami-2", "ProviderName:aws", "ProviderRegion:us-east-1", "root_hash:beef", "snapshot:snap-2"} {
		if !strings.Contains(text, want) {
			t.Errorf("metadata %s lacks %s", text, want)
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

// Specification and reference of options are generated from Config.
func TestGeneratedIsCurrent(t *testing.T) {
	b, err := os.ReadFile("../../../docs/partials/builder/packerplugin/ami/Config-not-required.mdx")
	if err != nil {
		t.Fatal(err)
	}
	spec := New().ConfigSpec()
	for _, key := range keys() {
		if spec[key] == nil || !strings.Contains(string(b), "\n- `"+key+"` (") {
			t.Errorf("the generated spec or docs/partials lack %s: run go generate", key)
		}
	}
}
