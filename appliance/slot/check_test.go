// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

var other = strings.Repeat("cd", 32)

// full is a record with everything in it.
func full() Record {
	digest := "sha256:" + other
	return Record{
		Format: Format, Last: 7, Epoch: 3, Quarantined: []string{digest},
		Committed: Generation{Number: 5, Slot: "A", RootHash: slottest.Hash, Data: "data-5", Release: "demo 1.1.0", Digest: digest, UKI: 4, Engine: "docker-26.1.5+dfsg1-9"},
		Kept:      &Generation{Number: 3, Slot: "B", RootHash: other, Data: "data-3"},
		Trial: &Trial{
			Generation: Generation{Number: 7, Slot: "B", RootHash: other, Data: "data-7"}, Kind: Upgrade, Origin: "data-5", Reboot: true,
			Armed: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), ArmedBoot: "a", Boot: "b", Deadline: 900, Window: 10, Starts: 1,
		},
	}
}

func TestFullRecord(t *testing.T) {
	data, err := json.Marshal(full())
	if err != nil {
		t.Fatal(err)
	}
	rec, err := Parse(data)
	if err != nil || rec.Trial.Number != 7 || rec.Kept.Number != 3 || rec.Next() != 8 {
		t.Fatalf("%+v, %v", rec, err)
	}
	for want, harm := range map[string]func(r *Record){
		"committed.uki":       func(r *Record) { r.Committed.UKI = 6 },
		"committed.engine":    func(r *Record) { r.Committed.Engine = "../x" },
		"committed.digest":    func(r *Record) { r.Committed.Digest = "sha256:x" },
		"committed.release":   func(r *Record) { r.Committed.Release = strings.Repeat("x", maxWords+1) },
		"kept.number":         func(r *Record) { r.Kept.Number = 5 },
		"kept.data":           func(r *Record) { r.Kept.Data = "data-9" },
		"kept.data: \"data-3": func(r *Record) { r.Committed.Data = "data-3" },
		"kept.slot":           func(r *Record) { r.Kept.Slot = "A" },
		"trial.kind":          func(r *Record) { r.Trial.Kind = "x" },
		"trial.number":        func(r *Record) { r.Trial.Number, r.Trial.Data = 5, "data-5" },
		"trial.data":          func(r *Record) { r.Trial.Data = "data-6" },
		"trial.origin":        func(r *Record) { r.Trial.Origin = "data-4" },
		"trial.slot":          func(r *Record) { r.Trial.Slot = "A" },
		"trial.root_hash":     func(r *Record) { r.Trial.Reboot = false },
		"trial.deadline":      func(r *Record) { r.Trial.Deadline = -1 },
		"trial.since":         func(r *Record) { r.Trial.Starts = -1 },
		"trial.failed":        func(r *Record) { r.Trial.Failed = strings.Repeat("x", maxWords+1) },
		"last":                func(r *Record) { r.Last = -1 },
		"epoch":               func(r *Record) { r.Epoch = -1 },
		"quarantined[0]":      func(r *Record) { r.Quarantined[0] = "x" },
		"quarantined: 65":     func(r *Record) { r.Quarantined = make([]string, 65) },
	} {
		rec := full()
		harm(&rec)
		if err := rec.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		if err := Save(t.TempDir(), rec); err == nil {
			t.Errorf("%s: saved", want)
		}
	}
}

func TestQuarantine(t *testing.T) {
	var rec Record
	for i := range MaxQuarantined + 5 {
		for range 2 {
			rec.Quarantine(fmt.Sprintf("sha256:%064x", i))
		}
	}
	rec.Quarantine("")
	if n := len(rec.Quarantined); n != MaxQuarantined || rec.Quarantined[0] != fmt.Sprintf("sha256:%064x", 5) {
		t.Errorf("%d, from %s", n, rec.Quarantined[0])
	}
}

func TestChooseTrial(t *testing.T) {
	a, b := Root{Letter: "A", Hash: slottest.Hash}, Root{Letter: "B", Hash: other}
	rec := full()
	if g, trial, err := Choose(rec, b); err != nil || !trial || g.Number != 7 {
		t.Errorf("the trial's root: %+v, %v, %v", g, trial, err)
	}
	if g, trial, err := Choose(rec, a); err != nil || trial || g.Number != 5 {
		t.Errorf("the committed root: %+v, %v, %v", g, trial, err)
	}
	rec.Trial.Failed = "it failed"
	if _, _, err := Choose(rec, b); !errors.Is(err, ErrForeignRoot) {
		t.Errorf("a trial that failed: %v", err)
	}
}

// TestPlainRecord: a record of before there were two copies is read, and
// counts for nothing once there are.
func TestPlainRecord(t *testing.T) {
	root := t.TempDir()
	slottest.Record(t, root, `{"format":1,"committed":{"number":1,"slot":"A","root_hash":"`+slottest.Hash+`","data":"data-1"}}`)
	rec, err := Load(root)
	if err != nil || rec.Committed.Number != 1 {
		t.Fatalf("%+v, %v", rec, err)
	}
	if rec, err = Update(root, func(r *Record) error { r.Epoch = 4; return nil }); err != nil || rec.Epoch != 4 {
		t.Fatalf("%+v, %v", rec, err)
	}
	if rec, err := Load(root); err != nil || rec.Epoch != 4 {
		t.Errorf("%+v, %v", rec, err)
	}
	// Damage is never taken for a first boot.
	for _, end := range []string{".1", ".2"} {
		slottest.Put(t, root, Path+end, "x")
	}
	if _, err := Load(root); err == nil || Missing(err) || !strings.Contains(err.Error(), "restore") {
		t.Errorf("both copies damaged: %v", err)
	}
}

func TestUpdate(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, filepath.Dir(Path)), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Update(root, func(*Record) error { return nil }); !Missing(err) {
		t.Errorf("nothing to change: %v", err)
	}
	if err := Save(root, full()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := Update(root, func(r *Record) error { r.Epoch++; r.Trial.Starts++; return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	rec, err := Load(root)
	if err != nil || rec.Epoch != 13 || rec.Trial.Starts != 11 {
		t.Errorf("%+v, %v", rec, err)
	}
	failed := errors.New("no")
	if got, err := Update(root, func(r *Record) error { r.Kept.Number = 1; return failed }); !errors.Is(err, failed) || got.Kept.Number != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Update(root, func(r *Record) error { r.Format = 2; return nil }); err == nil {
		t.Error("a bad record was written")
	}
}
