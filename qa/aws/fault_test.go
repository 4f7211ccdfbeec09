// SPDX-License-Identifier: Apache-2.0

//go:build engine

package aws

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An upload that is killed in the middle is gone on with: the same snapshot,
// no block twice but those of the last second, and nothing is orphaned.
func TestKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, dir := account(t), linked(t)
	o := p.options(t)
	const killAt = 300
	hit := make(chan struct{})
	var stop atomic.Bool
	var once sync.Once
	p.Done = func(r *Request) {
		if r.Op == "PutSnapshotBlock" && r.N >= killAt && !stop.Load() {
			once.Do(func() { close(hit) })
		}
	}
	in, err := json.Marshal(child{dir, o})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_PUBLISH="+string(in))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-hit:
	case <-time.After(2 * time.Minute):
		t.Error("the upload did not send 300 blocks within 2 min")
	}
	cmd.Process.Kill()
	cmd.Wait()
	stop.Store(true)
	if t.Failed() {
		t.FailNow()
	}
	before := len(p.Requests("PutSnapshotBlock"))
	p.only(t, 0, 1)
	var killed string
	for id := range p.Snapshots() {
		killed = id
	}
	r, err := child{dir, o}.publish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	starts := p.Requests("StartSnapshot")
	if len(starts) != 2 || starts[0].Text("ClientToken") != starts[1].Text("ClientToken") || r.Images[0].Snapshot != killed {
		t.Errorf("%d starts; %s instead of %s", len(starts), r.Images[0].Snapshot, killed)
	}
	all, after := len(p.Snapshots()[killed].Put), len(p.Requests("PutSnapshotBlock"))-before
	t.Logf("killed after %d blocks of %d; the next run sent %d", before, all, after)
	if after >= all {
		t.Errorf("the next run sent %d of %d blocks again", after, all)
	}
	p.only(t, 1, 1)
	p.sameAs(t, killed, dir)
}

// Faults that pass end in success and a whole snapshot.
func TestFaultsThatPass(t *testing.T) {
	dir := part(t, 64, nil)
	for _, c := range []struct {
		name  string
		fault Fault
		// every, when not 0, is which requests meet the fault; else the first
		// three of each operation.
		every int
	}{
		{"throttled", Throttle, 3}, {"500", InternalError, 4}, {"lost connection", Drop, 4}, {"lost answer", Lose, 5},
		{"hang", Hang, 0}, {"snapshot does not exist at first", NotThere, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := account(t)
			o := p.options(t)
			o.Regions, o.Users = []string{"us-east-1"}, []string{"123456789012"}
			o.Patience.Read, o.Patience.Attempt = 500*time.Millisecond, time.Second
			if c.fault != Hang {
				o.Patience.Read, o.Patience.Attempt = 0, 0
			}
			p.Fault = func(r *Request) Fault {
				switch {
				case c.fault == NotThere:
					if r.Op == "PutSnapshotBlock" && r.N <= 20 {
						return NotThere
					}
				case c.every > 0 && r.N%c.every == 1, c.every == 0 && r.N <= 2:
					return c.fault
				}
				return None
			}
			r, err := child{dir, o}.publish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			p.only(t, 2, 2)
			p.Fault = nil
			p.sameAs(t, r.Images[0].Snapshot, dir)
		})
	}
}

// Faults that stay end in one error, in time, and nothing is left.
func TestFaultsThatStay(t *testing.T) {
	dir := part(t, 64, nil)
	for _, fault := range []struct {
		name string
		fault
	}{{"throttled", fault{Throttle, "gave up"}}, {"500", fault{InternalError, "gave up"}}, {"hang", fault{Hang, "gave up"}}, {"lost connection", fault{Drop, "gave up"}},
		{"not there", fault{NotThere, "does not exist"}}, {"denied", fault{Denied, "lack the permission"}}} {
		for _, op := range []string{"PutSnapshotBlock", "CompleteSnapshot", "RegisterImage", "CopyImage"} {
			t.Run(fault.name+" at "+op, func(t *testing.T) {
				p := account(t)
				o := p.options(t)
				o.Regions = []string{"us-east-1"}
				o.Patience.Read, o.Patience.Attempt = 200*time.Millisecond, 400*time.Millisecond
				if fault.Fault != Hang {
					o.Patience.Read, o.Patience.Attempt = 0, 0
				}
				o.Patience.Call, o.Patience.Block, o.Patience.Missing = time.Second, time.Second, time.Second
				p.Fault = func(r *Request) Fault {
					if r.Op == op && (op != "PutSnapshotBlock" || r.N > 5) {
						return fault.Fault
					}
					return None
				}
				// Far more than the patience above, far less than a hang.
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("no end within a minute"))
				defer cancel()
				_, err := child{dir, o}.publish(ctx)
				if err == nil || !strings.Contains(err.Error(), fault.text) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %v, want one line with %q", err, fault.text)
				}
				p.only(t, 0, 0)
			})
		}
	}
}

type fault struct {
	Fault
	text string
}

// An interrupt at any point leaves nothing.
func TestInterrupt(t *testing.T) {
	dir := part(t, 64, nil)
	for _, op := range []string{"StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "RegisterImage", "CopyImage"} {
		t.Run(op, func(t *testing.T) {
			p := account(t)
			o := p.options(t)
			o.Regions = []string{"us-east-1"}
			ctx, cancel := context.WithCancelCause(t.Context())
			gone := errors.New("packer is gone")
			p.Done = func(r *Request) {
				if r.Op == op && (op != "PutSnapshotBlock" || r.N == 20) {
					cancel(gone)
				}
			}
			if _, err := (child{dir, o}).publish(ctx); !errors.Is(err, gone) {
				t.Errorf("error %v, want %v", err, gone)
			}
			p.only(t, 0, 0)
		})
	}
}
