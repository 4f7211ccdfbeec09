// SPDX-License-Identifier: Apache-2.0

//go:build engine

package aws

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/builder/target/ami"
)

// The whole demo disk: the snapshot is the disk block by block, the image says
// all it should, and copies and shares are asked as the model has them.
func TestUpload(t *testing.T) {
	p, dir := account(t), linked(t)
	o := p.options(t)
	o.Name, o.Description, o.UefiData = "demo 1.0.0 (test)", "Demo", "QU1aTlVFRkk="
	o.Regions, o.Users, o.SnapshotUsers = []string{"us-east-1", "ap-south-1"}, []string{"123456789012"}, []string{"123456789012"}
	o.Tags, o.SnapshotTags, o.DeprecateAt = map[string]string{"team": "a"}, map[string]string{"team": "b"}, "2030-01-02T03:04:05Z"
	o.IOPS, o.Throughput, o.VolumeGiB = 4000, 200, 40
	d, err := target.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var out lines
	start := time.Now()
	r, err := ami.Publish(t.Context(), d, o, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if _, err := os.Stat(r.File); err != nil {
		t.Error(err)
	}
	t.Logf("uploaded and registered in %s\n%s", time.Since(start).Round(time.Millisecond), &out)
	puts := len(p.Requests("PutSnapshotBlock"))
	snap := r.Images[0].Snapshot
	if s := p.Snapshots()[snap]; len(s.Put) != puts || !s.Complete || s.GiB != (d.Size+1<<30-1)>>30 {
		t.Errorf("%d blocks put in %d requests, complete %v, %d GiB", len(s.Put), puts, s.Complete, s.GiB)
	}
	p.sameAs(t, snap, dir)

	asked := p.Requests("RegisterImage")
	if len(asked) != 1 {
		t.Fatalf("RegisterImage was asked %d times", len(asked))
	}
	tags := tagsOf(dig(asked[0].Params, "TagSpecifications", 0, "Tags"))
	if tags["team"] != "a" || tags["Name"] != o.Name || tags["holdfast:root-hash"] != d.Manifest.RootHash || tags["holdfast:release"] != d.Release() {
		t.Errorf("the image's tags are %v", tags)
	}
	delete(asked[0].Params, "TagSpecifications")
	want := map[string]any{
		"Name": o.Name, "Description": "Demo", "Architecture": "x86_64", "VirtualizationType": "hvm", "RootDeviceName": "/dev/xvda",
		"EnaSupport": "true", "SriovNetSupport": "simple", "BootMode": "uefi", "TpmSupport": "v2.0", "ImdsSupport": "v2.0", "UefiData": o.UefiData,
		"BlockDeviceMappings": []any{map[string]any{"DeviceName": "/dev/xvda", "Ebs": map[string]any{
			"SnapshotId": snap, "VolumeSize": "40", "VolumeType": "gp3", "DeleteOnTermination": "true", "Iops": "4000", "Throughput": "200"}}},
	}
	if !reflect.DeepEqual(asked[0].Params, want) {
		t.Errorf("RegisterImage was asked\n%v\nwant\n%v", asked[0].Params, want)
	}
	p.only(t, 3, 3)
	for _, im := range p.Images() {
		if im.Region == region {
			continue
		}
		if im.Asked["SourceImageId"] != r.Images[0].ID || im.Asked["SourceRegion"] != region || im.Asked["Name"] != o.Name || im.Asked["ClientToken"] == nil {
			t.Errorf("the copy in %s was asked %v", im.Region, im.Asked)
		}
	}
	for op, n := range map[string]int{"ModifyImageAttribute": 3, "ModifySnapshotAttribute": 3, "EnableImageDeprecation": 3} {
		if got := p.Requests(op); len(got) != n {
			t.Errorf("%s was asked %d times, want %d", op, len(got), n)
		}
	}
	if err := ami.Remove(t.Context(), o.Access, *r); err != nil {
		t.Error(err)
	}
	p.only(t, 0, 0)
}

func tagsOf(list any) map[string]string {
	tags := map[string]string{}
	all, _ := list.([]any)
	for i := range all {
		k, _ := dig(all[i], "Key").(string)
		tags[k], _ = dig(all[i], "Value").(string)
	}
	return tags
}

// The next release goes on top of the last: only what changed is sent, whether
// this machine has the list of the last one's blocks or has to read it back,
// and the snapshot is the new disk all the same.
func TestParent(t *testing.T) {
	p := account(t)
	o := p.options(t)
	const mib = 300
	first, err := child{part(t, mib, nil), o}.publish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	next := part(t, mib, func(f *os.File) error {
		for _, c := range []struct {
			at   int64
			text string
		}{{3 << 20, "changed"}, {100<<20 + 5, "changed"}, {(mib - 1) << 20, "was a hole, perhaps"}} {
			if _, err := f.WriteAt([]byte(c.text), c.at); err != nil {
				return err
			}
		}
		_, err := f.WriteAt(make([]byte, 1<<20), 20<<20) // two blocks of data become zeros
		return err
	})
	full := len(p.Requests("PutSnapshotBlock"))
	for _, c := range []struct {
		name, cache string
		reads       bool
	}{{"with the list", o.Cache, false}, {"reading back", t.TempDir(), true}} {
		t.Run(c.name, func(t *testing.T) {
			p.Forget()
			o.Cache, o.Name, o.Parent = c.cache, c.name, first.Images[0].Snapshot
			r, err := child{next, o}.publish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			puts := p.Requests("PutSnapshotBlock")
			if reads := len(p.Requests("GetSnapshotBlock")) > 0; len(puts) != 5 || reads != c.reads {
				t.Errorf("%d blocks put, want 5; read back: %v", len(puts), reads)
			}
			t.Logf("%d of %d blocks sent", len(puts), full)
			if start := p.Requests("StartSnapshot")[0]; start.Text("ParentSnapshotId") != first.Images[0].Snapshot {
				t.Errorf("started with %v", start.Params)
			}
			p.sameAs(t, r.Images[0].Snapshot, next)
		})
	}
}

// parent_snapshot_id = "last" finds the last release by itself.
func TestParentLast(t *testing.T) {
	p := account(t)
	o := p.options(t)
	o.Parent = ami.Last
	dir := part(t, 64, nil)
	first, err := child{dir, o}.publish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Forget()
	o.Name = "again"
	second, err := child{dir, o}.publish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.Requests("PutSnapshotBlock")); n != 0 || p.Snapshots()[second.Images[0].Snapshot].Parent != first.Images[0].Snapshot {
		t.Errorf("%d blocks put on top of %q", n, p.Snapshots()[second.Images[0].Snapshot].Parent)
	}
	p.sameAs(t, second.Images[0].Snapshot, dir)
}

// Encryption: with a key, in the region of the upload and in another.
func TestEncrypted(t *testing.T) {
	p := account(t)
	o := p.options(t)
	key := "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
	other := "arn:aws:kms:us-east-1:123456789012:key/66666666-2222-3333-4444-555555555555"
	o.Encrypt, o.KMSKey, o.Regions, o.RegionKMSKeys = true, key, []string{"us-east-1"}, map[string]string{"us-east-1": other}
	if _, err := (child{part(t, 64, nil), o}).publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	start, cp := p.Requests("StartSnapshot")[0], p.Requests("CopyImage")[0]
	if start.Text("Encrypted") != "true" || start.Text("KmsKeyArn") != key || cp.Text("Encrypted") != "true" || cp.Text("KmsKeyId") != other || cp.Region != "us-east-1" {
		t.Errorf("asked %v and %v", start.Params, cp.Params)
	}
	if dig(p.Requests("RegisterImage")[0].Params, "BlockDeviceMappings", 0, "Ebs", "Encrypted") != nil {
		t.Error("RegisterImage was asked to encrypt, which it refuses with a snapshot")
	}
}

// The same name again is one error before anything is sent; force_deregister
// replaces the image and force_delete_snapshot its snapshot.
func TestNameTaken(t *testing.T) {
	p := account(t)
	o := p.options(t)
	dir := part(t, 16, nil)
	first, err := child{dir, o}.publish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Forget()
	_, err = child{dir, o}.publish(t.Context())
	if err == nil || !strings.Contains(err.Error(), "ami_name: the name is taken") || len(p.Requests("StartSnapshot")) > 0 {
		t.Errorf("error %v after %d requests", err, len(p.Requests("")))
	}
	o.ForceDeregister, o.ForceDeleteSnapshot = true, true
	second, err := child{dir, o}.publish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.only(t, 1, 1)
	if p.Images()[second.Images[0].ID] == nil || second.ID() == first.ID() {
		t.Errorf("%s was replaced by %s", first.ID(), second.ID())
	}
}
