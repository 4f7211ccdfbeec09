// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

func TestPool(t *testing.T) {
	row := func(name, size, data, meta string) map[string]string {
		return map[string]string{"lv_name": name, "lv_size": size, "data_percent": data, "metadata_percent": meta}
	}
	rows := []map[string]string{row("pool", "1000", "60.00", "10.00"), row("state", "400", "25.00", ""), row("data-1", "400", "75.00", ""), row("data-2", "400", "50.00", "")}
	for kept, want := range map[string]Pool{
		"data-1": {Size: 1000, Used: 600, Free: 400, Kept: 300, Metadata: 0.1},
		"":       {Size: 1000, Used: 600, Free: 400, Metadata: 0.1},
	} {
		if got, err := measure(rows, kept); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", kept, got, err, want)
		}
	}
	for name, bad := range map[string][]map[string]string{
		"no pool":  {row("state", "400", "", "")},
		"no share": {row("pool", "1000", "x", "")},
		"no size":  {row("pool", "", "1", "")},
		"too much": {row("pool", "1000", "101", "")},
	} {
		if got, err := measure(bad, ""); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if !(Pool{Size: 1000, Free: 99}).Short() || !(Pool{Size: 1000, Free: 500, Metadata: 0.9}).Short() || (Pool{Size: 1000, Free: 100}).Short() {
		t.Error("what is short")
	}
}

// TestRelieve: a pool that runs short gives up what is kept, and nothing else,
// and never during a trial. A cut leaves a volume that nothing names.
func TestRelieve(t *testing.T) {
	ctx := context.Background()
	kept := func(used int) (*fakeLVM, *fakeDisk) {
		f, d := stackTrial(t, "")
		must(t, Switch(ctx, f.env(), f.record()))
		must(t, Settle(ctx, f.env(), f.note(commit)))
		d.volumes[pool].used = used
		return f, d
	}
	f, d := kept(90)
	if did, err := Relieve(ctx, f.env()); did || err != nil || f.record().Kept == nil {
		t.Errorf("a tenth is free: %v, %v", did, err)
	}
	d.volumes[pool].used = 91
	f.note(func(rec *slot.Record) { rec.Trial = trialOf(3, "data-2", false) })
	if did, err := Relieve(ctx, f.env()); did || err != nil || f.record().Kept == nil {
		t.Errorf("in a trial: %v, %v", did, err)
	}
	f.note(func(rec *slot.Record) { rec.Trial = nil })
	f.ran = nil
	if did, err := Relieve(ctx, f.env()); !did || err != nil || f.record().Kept != nil || !slices.Equal(d.data(), []string{"data-2"}) {
		t.Errorf("%v, %v, %v", did, err, d.data())
	}
	for cut := range 2 * len(f.ran) {
		f, d := kept(95)
		f.ran, f.cut = nil, cut
		if did, err := Relieve(ctx, f.env()); !did || !errors.Is(err, errCut) || f.record().Kept != nil {
			t.Errorf("cut %d: %v, %v", cut, did, err)
		}
		must(t, f.power(Wish{}))
		if err := Settle(ctx, f.env(), f.record()); err != nil || !slices.Equal(d.data(), []string{"data-2"}) {
			t.Errorf("cut %d: %v, %v", cut, err, d.data())
		}
	}
}

func TestEngine(t *testing.T) {
	root := t.TempDir()
	if id, err := Engine(root); err != nil || id != noEngine {
		t.Errorf("no file: %q, %v", id, err)
	}
	for text, want := range map[string]string{"docker-26.1.5+dfsg1-9\n": "docker-26.1.5+dfsg1-9", "": "", "../x": "", "a b": "", strings.Repeat("x", 200): ""} {
		slottest.Put(t, root, engineFile, text)
		if id, err := Engine(root); id != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, id, err)
		}
	}
}
