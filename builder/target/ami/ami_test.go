// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/images/ebs"
)

// baked is an output folder whose disk is 8 MiB: data in blocks 0, 2, 3 and
// 15, the last with its end alone.
func baked(t testing.TB, change ...func(f *os.File)) *target.Disk {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, target.DiskName))
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	f.WriteAt(data[:4096], 0)
	f.WriteAt(data[:700<<10], 2*ebs.BlockSize)
	f.WriteAt(data[:4096], 8<<20-4096)
	for _, c := range change {
		c(f)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%064x", len(change)+1)
	m := builder.Manifest{Format: 1, Name: "demo", Version: "1.0.0", RootHash: strings.Repeat("ab", 32),
		Files: []builder.ManifestFile{{Name: target.DiskName, Bytes: 8 << 20, SHA256: sum}}}
	b, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, builder.ManifestName), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := target.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// quick is Patience for tests: no wait is long enough to be felt.
var quick = Patience{
	Read: 5 * time.Second, Attempt: 5 * time.Second, Call: 300 * time.Millisecond, Block: 300 * time.Millisecond, Missing: 200 * time.Millisecond,
	Backoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond, Poll: time.Millisecond, MaxPoll: 5 * time.Millisecond,
	Snapshot: 10 * time.Second, Image: 10 * time.Second, Copy: 10 * time.Second, Cleanup: 10 * time.Second,
}

func (f *fake) options(t testing.TB) Options {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	return Options{
		Access: Access{Region: "eu-central-1", AccessKey: "AKIDEXAMPLE", SecretKey: "secret", EC2: f.URL, EBS: f.URL},
		Cache:  t.TempDir(), Patience: quick,
	}
}

type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.text, format+"\n", args...)
}

func (l *lines) Warn(format string, args ...any) { l.Say("WARNING: "+format, args...) }

// empty fails unless nothing is left in the account.
func (f *fake) empty(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.snaps)+len(f.images) > 0 {
		t.Errorf("left behind: %d snapshots, %d images", len(f.snaps), len(f.images))
	}
}

// noState fails when a state of an upload is still in the cache.
func noState(t *testing.T, o Options) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(o.Cache, "ami", "*.json")); len(left) > 0 {
		t.Errorf("state left behind: %v", left)
	}
}

func TestPublish(t *testing.T) {
	f, d := newFake(t), baked(t)
	o := f.options(t)
	o.Regions = []string{"us-east-1", "eu-central-1"}
	o.Users, o.SnapshotUsers, o.DeprecateAt = []string{"123456789012"}, []string{"123456789012"}, "2030-01-02T03:04:05Z"
	o.OrgARNs = []string{"arn:aws:organizations::123456789012:organization/o-abcdefghij"}
	o.Tags, o.SnapshotTags, o.Description = map[string]string{"team": "a"}, map[string]string{"team": "b"}, "Demo"
	o.UefiData = "QU1aTlVFRkk="
	var out lines
	r, err := Publish(t.Context(), d, o, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.text.String())
	}
	if len(r.Images) != 2 || !strings.HasPrefix(r.ID(), "eu-central-1:ami-") || !strings.Contains(r.ID(), ",us-east-1:ami-") {
		t.Errorf("result is %s: %+v", r.ID(), r)
	}
	s := f.snaps[r.Images[0].Snapshot]
	if len(s.put) != 4 || s.gib != 1 || s.tags["team"] != "b" || s.tags[tagRelease] != "demo-1.0.0" || s.tags["Name"] != "demo-1.0.0" {
		t.Errorf("snapshot is %+v", s)
	}
	if c := f.snaps[r.Images[1].Snapshot]; c == nil || c.region != "us-east-1" || c.tags["team"] != "b" {
		t.Errorf("the copy's snapshot is %+v", c)
	}
	got := map[string]string{}
	for k, v := range f.params["RegisterImage"] {
		if !strings.HasPrefix(k, "TagSpecification") {
			got[k] = v[0]
		}
	}
	want := map[string]string{
		"Action": "RegisterImage", "Version": "2016-11-15", "Name": "demo-1.0.0", "Description": "Demo", "Architecture": "x86_64",
		"VirtualizationType": "hvm", "EnaSupport": "true", "SriovNetSupport": "simple", "BootMode": "uefi", "TpmSupport": "v2.0",
		"ImdsSupport": "v2.0", "UefiData": o.UefiData, "RootDeviceName": "/dev/xvda", "BlockDeviceMapping.1.DeviceName": "/dev/xvda",
		"BlockDeviceMapping.1.Ebs.SnapshotId": s.id, "BlockDeviceMapping.1.Ebs.VolumeSize": "20", "BlockDeviceMapping.1.Ebs.VolumeType": "gp3",
		"BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("RegisterImage was asked\n%v\nwant\n%v", got, want)
	}
	for _, region := range []string{"eu-central-1", "us-east-1"} {
		p := f.shared["ModifyImageAttribute "+region]
		if p.Get("LaunchPermission.Add.1.UserId") != "123456789012" || p.Get("LaunchPermission.Add.2.OrganizationArn") != o.OrgARNs[0] {
			t.Errorf("image in %s shared with %v", region, p)
		}
		if p := f.shared["ModifySnapshotAttribute "+region]; p.Get("CreateVolumePermission.Add.1.UserId") != "123456789012" || p.Get("Attribute") != "createVolumePermission" {
			t.Errorf("snapshot in %s shared with %v", region, p)
		}
		if p := f.shared["EnableImageDeprecation "+region]; !strings.HasPrefix(p.Get("DeprecateAt"), "2030-01-02T03:04:05") {
			t.Errorf("image in %s deprecated at %v", region, p)
		}
	}
	noState(t, o)
	if err := Remove(t.Context(), o.Access, *r); err != nil {
		t.Error(err)
	}
	f.empty(t)
}

// The name is taken, in any of the regions: one error, and nothing was started.
func TestNameTaken(t *testing.T) {
	f, d := newFake(t), baked(t)
	o := f.options(t)
	o.Regions = []string{"us-east-1"}
	old := &fakeImage{id: "ami-0old", region: "us-east-1", name: "demo-1.0.0", snap: "snap-0old"}
	f.images[old.id], f.snaps[old.snap] = old, &fakeSnap{id: old.snap, region: "us-east-1"}
	_, err := Publish(t.Context(), d, o, &lines{})
	if err == nil || !strings.Contains(err.Error(), `ami_name: the name is taken: "demo-1.0.0" is ami-0old in us-east-1; choose`) || f.count["StartSnapshot"] > 0 {
		t.Errorf("error %v after %v", err, f.log)
	}
	o.ForceDeregister, o.ForceDeleteSnapshot = true, true
	r, err := Publish(t.Context(), d, o, &lines{})
	if err != nil || f.images["ami-0old"] != nil || f.snaps["snap-0old"] != nil || len(f.images) != 2 {
		t.Errorf("%v, %v with %d images", r, err, len(f.images))
	}
}

func TestPublicAccessBlocked(t *testing.T) {
	f, d := newFake(t), baked(t)
	f.block = true
	o := f.options(t)
	o.Groups = []string{"all"}
	_, err := Publish(t.Context(), d, o, &lines{})
	if err == nil || !strings.Contains(err.Error(), "ami_groups: the account blocks public images in eu-central-1") || f.count["StartSnapshot"] > 0 {
		t.Errorf("error %v", err)
	}
	f.block = false
	if _, err := Publish(t.Context(), d, o, &lines{}); err != nil || f.shared["ModifyImageAttribute eu-central-1"].Get("LaunchPermission.Add.1.Group") != "all" {
		t.Errorf("%v, shared %v", err, f.shared)
	}
}

// The second upload goes on top of the first: only what changed is sent, and
// what became zero is sent as zeros.
func TestParent(t *testing.T) {
	f := newFake(t)
	o := f.options(t)
	o.SkipCreate = true
	first, err := Publish(t.Context(), baked(t), o, &lines{})
	if err != nil {
		t.Fatal(err)
	}
	changed := baked(t, func(w *os.File) {
		w.WriteAt(make([]byte, 4096), 0)
		w.WriteAt([]byte{1}, 2*ebs.BlockSize)
		w.WriteAt([]byte{1}, 5*ebs.BlockSize)
	})
	o.Parent = Last
	for _, cache := range []string{o.Cache, ""} {
		if cache == "" {
			// Nothing known here: GetSnapshotBlock is asked, which this
			// fake refuses, so the path is seen; qa/aws goes all of it.
			o.Cache, o.Name = t.TempDir(), "other"
			delete(f.snaps, first.Images[0].Snapshot+"x")
			_, err := Publish(t.Context(), changed, o, &lines{})
			if err == nil || !strings.Contains(err.Error(), "read block") {
				t.Errorf("without a list: %v", err)
			}
			break
		}
		r, err := Publish(t.Context(), changed, o, &lines{})
		if err != nil {
			t.Fatal(err)
		}
		s := f.snaps[r.Images[0].Snapshot]
		if s.parent != first.Images[0].Snapshot || len(s.put) != 3 || s.put[0] != ebs.ZeroSum || s.put[2] == f.snaps[s.parent].put[2] || s.put[5] == (ebs.Sum{}) {
			t.Errorf("on top of %s: %d blocks put", s.parent, len(s.put))
		}
		if f.start["ParentSnapshotId"] != s.parent || f.start["Encrypted"] != nil {
			t.Errorf("started with %v", f.start)
		}
	}
}

// Whatever step fails, one error tells of it and nothing is left.
func TestFailuresLeaveNothing(t *testing.T) {
	for _, op := range []string{"StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "DescribeSnapshots", "RegisterImage", "CopyImage", "ModifyImageAttribute"} {
		for _, kind := range []string{"denied", "500", "dropped"} {
			t.Run(op+" "+kind, func(t *testing.T) {
				f, d := newFake(t), baked(t)
				o := f.options(t)
				o.Regions, o.Users = []string{"us-east-1"}, []string{"123456789012"}
				f.meet(func(w http.ResponseWriter, r *http.Request, got string, n int) bool {
					// The first look for snapshots is the preflight's.
					if got != op || op == "PutSnapshotBlock" && n == 1 || op == "DescribeSnapshots" && r.Form.Get("SnapshotId.1") == "" {
						return false
					}
					switch ebs := strings.HasSuffix(op, "Block") || op == "StartSnapshot" || op == "CompleteSnapshot"; {
					case kind == "500":
						http.Error(w, "oops", 500)
					case kind == "dropped":
						panic(http.ErrAbortHandler)
					case ebs:
						ebsError(w, 403, "AccessDeniedException", "User is not authorized")
					default:
						ec2Error(w, 403, "UnauthorizedOperation", "You are not authorized")
					}
					return true
				})
				_, err := Publish(t.Context(), d, o, &lines{})
				if err == nil {
					t.Fatal("it succeeded")
				}
				if text := err.Error(); strings.Count(text, "\n") > 0 || !strings.Contains(text, " in ") || kind == "denied" && !strings.Contains(text, "lack the permission e") || kind != "denied" && !errors.Is(err, errGaveUp) {
					t.Errorf("the error is %q", text)
				}
				f.empty(t)
				noState(t, o)
			})
		}
	}
}

// Faults that pass end in success.
func TestFaultsThatPass(t *testing.T) {
	for kind, fault := range map[string]func(w http.ResponseWriter, op string){
		"throttled": func(w http.ResponseWriter, op string) {
			if strings.Contains(op, "Snapshot") && !strings.HasPrefix(op, "De") {
				ebsError(w, 400, "RequestThrottledException", "slow down")
			} else {
				ec2Error(w, 503, "RequestLimitExceeded", "slow down")
			}
		},
		"500":     func(w http.ResponseWriter, op string) { http.Error(w, "oops", 500) },
		"dropped": func(http.ResponseWriter, string) { panic(http.ErrAbortHandler) },
	} {
		t.Run(kind, func(t *testing.T) {
			f, d := newFake(t), baked(t)
			o := f.options(t)
			o.Regions, o.Users = []string{"us-east-1"}, []string{"123456789012"}
			var mu sync.Mutex
			hit := map[string]int{}
			f.meet(func(w http.ResponseWriter, r *http.Request, op string, n int) bool {
				mu.Lock()
				hit[op]++
				first := hit[op] <= 2
				mu.Unlock()
				if first {
					fault(w, op)
				}
				return first
			})
			if _, err := Publish(t.Context(), d, o, &lines{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// An answer that is lost after AWS did what was asked leads to no second
// image, no second snapshot and no failure.
func TestLostAnswers(t *testing.T) {
	for _, op := range []string{"StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "RegisterImage", "CopyImage"} {
		t.Run(op, func(t *testing.T) {
			f, d := newFake(t), baked(t)
			o := f.options(t)
			o.Regions = []string{"us-east-1"}
			f.watch(func(got string, n int) {
				if got == op && n == 1 {
					panic(http.ErrAbortHandler)
				}
			})
			r, err := Publish(t.Context(), d, o, &lines{})
			if err != nil {
				t.Fatal(err)
			}
			if len(f.snaps) != 2 || len(f.images) != 2 || len(f.snaps[r.Images[0].Snapshot].put) != 4 {
				t.Errorf("%d snapshots, %d images", len(f.snaps), len(f.images))
			}
		})
	}
}

// A snapshot that a part of EBS does not know yet is tolerated, one that stays
// unknown is not.
func TestSnapshotUnknownAtFirst(t *testing.T) {
	f, d := newFake(t), baked(t)
	o := f.options(t)
	o.Patience.Missing = 5 * time.Second
	f.meet(func(w http.ResponseWriter, r *http.Request, op string, n int) bool {
		if unknown := op == "PutSnapshotBlock" && n < 20; unknown {
			ebsError(w, 404, "ResourceNotFoundException", "The snapshot does not exist.")
			return true
		}
		return false
	})
	if _, err := Publish(t.Context(), d, o, &lines{}); err != nil {
		t.Error(err)
	}
	o.Name, o.Patience.Missing = "other", 50*time.Millisecond
	f.meet(func(w http.ResponseWriter, r *http.Request, op string, n int) bool {
		if op == "PutSnapshotBlock" {
			ebsError(w, 404, "ResourceNotFoundException", "The snapshot does not exist.")
			return true
		}
		return false
	})
	if _, err := Publish(t.Context(), d, o, &lines{}); err == nil || !strings.Contains(err.Error(), "does not exist") || len(f.snaps) != 1 {
		t.Errorf("error %v, %d snapshots", err, len(f.snaps))
	}
}

// An interrupt during the upload, the registration or the copy leaves nothing.
func TestInterrupt(t *testing.T) {
	for _, op := range []string{"PutSnapshotBlock", "CompleteSnapshot", "RegisterImage", "CopyImage"} {
		t.Run(op, func(t *testing.T) {
			f, d := newFake(t), baked(t)
			o := f.options(t)
			o.Regions = []string{"us-east-1"}
			ctx, cancel := context.WithCancelCause(t.Context())
			gone := errors.New("packer is gone")
			f.meet(func(w http.ResponseWriter, r *http.Request, got string, n int) bool {
				if got == op && n == 1 {
					cancel(gone)
				}
				return false
			})
			if _, err := Publish(ctx, d, o, &lines{}); !errors.Is(err, gone) {
				t.Errorf("error %v, want %v", err, gone)
			}
			f.empty(t)
			noState(t, o)
		})
	}
}
