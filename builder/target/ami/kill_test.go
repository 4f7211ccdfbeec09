// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/builder/target"
)

// TestMain lets the test binary be a run of its own, to be killed.
func TestMain(m *testing.M) {
	text := os.Getenv("HOLDFAST_TEST_PUBLISH")
	if text == "" {
		os.Exit(m.Run())
	}
	var in child
	err := json.Unmarshal([]byte(text), &in)
	if err == nil {
		err = in.publish()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

type child struct {
	Dir     string
	Options Options
}

func (c child) publish() error {
	d, err := target.Open(c.Dir)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = Publish(context.Background(), d, c.Options, &lines{})
	return err
}

// A run that is killed is gone on with by the next: the same snapshot, the
// same images, and of the blocks only those that were not noted yet.
func TestKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		op string
		n  int
	}{{"StartSnapshot", 1}, {"PutSnapshotBlock", 3}, {"CompleteSnapshot", 1}, {"RegisterImage", 1}, {"CopyImage", 1}, {"ModifyImageAttribute", 1}} {
		t.Run(c.op, func(t *testing.T) {
			f, d := newFake(t), baked(t)
			o := f.options(t)
			o.Regions, o.Users = []string{"us-east-1"}, []string{"123456789012"}
			in, err := json.Marshal(child{d.Dir, o})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), "HOLDFAST_TEST_PUBLISH="+string(in))
			var said strings.Builder
			cmd.Stderr = &said
			hit := make(chan struct{})
			var once sync.Once
			f.watch(func(op string, n int) {
				if op == c.op && n >= c.n {
					once.Do(func() { close(hit) })
					<-t.Context().Done() // no answer: the child is killed while it waits
				}
			})
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-hit:
			case <-time.After(30 * time.Second):
				t.Errorf("the run did not come to %s within 30 s", c.op)
			}
			cmd.Process.Kill()
			cmd.Wait()
			f.watch(nil)
			if t.Failed() {
				t.Fatal(said.String())
			}
			var out lines
			r, err := Publish(t.Context(), d, o, &out)
			if err != nil {
				t.Fatalf("%v\n%s", err, out.text.String())
			}
			if len(f.snaps) != 2 || len(f.images) != 2 || len(f.snaps[r.Images[0].Snapshot].put) != 4 {
				t.Errorf("%d snapshots, %d images, %d blocks", len(f.snaps), len(f.images), len(f.snaps[r.Images[0].Snapshot].put))
			}
			if f.count["RegisterImage"] != 1 {
				t.Errorf("RegisterImage was asked %d times", f.count["RegisterImage"])
			}
			noState(t, o)
		})
	}
}

// When another image comes under the name of a killed run, what that run left
// is cleared away first.
func TestKilledThenChanged(t *testing.T) {
	f := newFake(t)
	o := f.options(t)
	first := baked(t)
	ctx, cancel := context.WithCancel(t.Context())
	o.Patience.Cleanup = time.Nanosecond // as good as killed
	f.watch(func(op string, n int) {
		if op == "RegisterImage" {
			cancel()
		}
	})
	if _, err := Publish(ctx, first, o, &lines{}); err == nil || !f.holds(1, 1) {
		t.Fatalf("%v, or it left nothing", err)
	}
	o.Patience.Cleanup = 10 * time.Second
	f.watch(nil)
	r, err := Publish(t.Context(), baked(t, func(w *os.File) { w.WriteAt([]byte{1}, 1<<20) }), o, &lines{})
	if err != nil || len(f.images) != 1 || len(f.snaps) != 1 || f.images[r.Images[0].ID] == nil {
		t.Errorf("%v, %d images, %d snapshots", err, len(f.images), len(f.snaps))
	}
}

// A copy that a killed run began in a region which is no longer asked for goes
// too.
func TestKilledThenFewerRegions(t *testing.T) {
	f, d := newFake(t), baked(t)
	o := f.options(t)
	ctx, cancel := context.WithCancel(t.Context())
	o.Patience.Cleanup, o.Regions = time.Nanosecond, []string{"us-east-1"}
	f.watch(func(op string, n int) {
		if op == "CopyImage" {
			cancel()
		}
	})
	if _, err := Publish(ctx, d, o, &lines{}); err == nil || !f.holds(2, 2) {
		t.Fatalf("%v, or it left nothing", err)
	}
	o.Patience.Cleanup, o.Regions = 10*time.Second, nil
	f.watch(nil)
	r, err := Publish(t.Context(), d, o, &lines{})
	if err != nil || len(f.images) != 1 || len(f.snaps) != 1 || f.images[r.Images[0].ID] == nil || f.count["RegisterImage"] != 1 {
		t.Errorf("%v, %d images, %d snapshots", err, len(f.images), len(f.snaps))
	}
}

// holds tells whether the account has that many images and snapshots.
func (f *fake) holds(images, snapshots int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.images) == images && len(f.snaps) == snapshots
}

// killed leaves the state of a run whose snapshot EBS has cancelled, and says
// its id.
func killed(t *testing.T, f *fake, o Options, d *target.Disk) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Patience.Cleanup = time.Nanosecond
	f.watch(func(op string, n int) {
		if op == "PutSnapshotBlock" {
			cancel()
		}
	})
	_, err := Publish(ctx, d, o, &lines{})
	f.watch(nil)
	// Requests that the run gave up on may still be at work.
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil || len(f.snaps) != 1 {
		t.Fatalf("%v, %d snapshots", err, len(f.snaps))
	}
	id := ""
	for id = range f.snaps {
		f.snaps[id].status = "error"
	}
	return id
}

// A snapshot that EBS cancelled in the meantime cannot be gone on with: it is
// deleted and another one started. So it goes too where nothing is known of
// the run that made it, as on another machine.
func TestKilledAndCancelled(t *testing.T) {
	for _, here := range []bool{true, false} {
		f, d := newFake(t), baked(t)
		o := f.options(t)
		id := killed(t, f, o, d)
		if !here {
			o.Cache = t.TempDir()
		}
		r, err := Publish(t.Context(), d, o, &lines{})
		if err != nil {
			t.Fatal(err)
		}
		if len(f.snaps) != 1 || f.snaps[id] != nil || len(f.snaps[r.Images[0].Snapshot].put) != 4 {
			t.Errorf("known here %v: %d snapshots, the dead one among them: %v", here, len(f.snaps), f.snaps[id] != nil)
		}
		noState(t, o)
	}
}

// A public image of an account that encrypts by default would fail after all
// was uploaded and copied; it fails before.
func TestPublicAndEncryptedByDefault(t *testing.T) {
	f, d := newFake(t), baked(t)
	f.encrypts = true
	o := f.options(t)
	o.Groups = []string{"all"}
	if _, err := Publish(t.Context(), d, o, &lines{}); err == nil || !strings.Contains(err.Error(), "the account encrypts new snapshots in eu-central-1 by default") || f.count["PutSnapshotBlock"] > 0 {
		t.Errorf("error %v", err)
	}
	f.empty(t)
}
