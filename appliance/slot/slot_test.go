// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

var labels = []string{"esp", "root-a", "root-b", "factory", "state"}

func TestRunning(t *testing.T) {
	for label, want := range map[string]Root{
		"root-a": {Letter: "A", Hash: slottest.Hash, Partition: "vda2", Disk: "vda"},
		"root-b": {Letter: "B", Hash: slottest.Hash, Partition: "vda3", Disk: "vda"},
	} {
		root := slottest.Box(t, label, labels...)
		got, err := Running(root)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", label, got, err, want)
		}
	}
}

func TestRunningRefuses(t *testing.T) {
	cases := []struct {
		name, want string
		change     func(root string)
	}{
		{"no root hash", "not a sealed root", func(root string) { slottest.Put(t, root, "proc/cmdline", "root=/dev/vda2\n") }},
		{"short hash", "want 64 hex digits", func(root string) { slottest.Put(t, root, "proc/cmdline", "roothash=abcd\n") }},
		{"root not in sysfs", "not in sysfs", func(root string) {
			slottest.Put(t, root, "proc/self/mountinfo", "22 1 0:31 / / rw - tmpfs none rw\n")
		}},
		{"plain partition", "not one dm-verity device", func(root string) {
			if err := os.RemoveAll(filepath.Join(root, "sys/devices/virtual/block/dm-0/slaves")); err != nil {
				t.Fatal(err)
			}
		}},
		{"no table", "partition table", func(root string) { slottest.Put(t, root, "dev/vda", strings.Repeat("\x00", 1<<20)) }},
		{"nothing mounted", "nothing is mounted at /", func(root string) { slottest.Put(t, root, "proc/self/mountinfo", "") }},
	}
	for _, c := range cases {
		root := slottest.Box(t, "root-a", labels...)
		c.change(root)
		if _, err := Running(root); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := Running(slottest.Box(t, "other", "esp", "other")); err == nil || !strings.Contains(err.Error(), "want root-a or root-b") {
		t.Errorf("foreign label: %v", err)
	}
}

func TestSibling(t *testing.T) {
	root := slottest.Box(t, "root-a", labels...)
	r, err := Running(root)
	if err != nil {
		t.Fatal(err)
	}
	for label, want := range map[string]string{"state": "vda5", "factory": "vda4", "none": ""} {
		if got, err := r.Sibling(root, label); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", label, got, err, want)
		}
	}
	root = slottest.Box(t, "root-a", "root-a", "state", "state")
	if r, err = Running(root); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Sibling(root, "state"); err == nil || !strings.Contains(err.Error(), "two partitions") {
		t.Errorf("two of one label: %v", err)
	}
}

func TestRecordKeepsAndChooses(t *testing.T) {
	root := t.TempDir()
	if _, err := Load(root); !Missing(err) {
		t.Fatalf("no record: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(root, filepath.Dir(Path)), 0o755); err != nil {
		t.Fatal(err)
	}
	running := Root{Letter: "A", Hash: slottest.Hash}
	want := First(running)
	if err := Save(root, want); err != nil {
		t.Fatal(err)
	}
	got, err := Load(root)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
	if gen, _, err := Choose(got, running); err != nil || gen.Data != "data-1" {
		t.Errorf("own root: %+v, %v", gen, err)
	}
	for _, foreign := range []Root{{Letter: "B", Hash: slottest.Hash}, {Letter: "A", Hash: strings.Repeat("cd", 32)}} {
		if gen, _, err := Choose(got, foreign); !errors.Is(err, ErrForeignRoot) {
			t.Errorf("foreign root %+v got %+v, %v", foreign, gen, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := `{"format":1,"committed":{"number":1,"slot":"A","root_hash":"` + slottest.Hash + `","data":"data-1"}}`
	if _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	adopted := strings.NewReplacer(`"number":1`, `"number":6`, "data-1", "data-3").Replace(good)
	if rec, err := Parse([]byte(adopted)); err != nil || rec.Committed.Data != "data-3" {
		t.Errorf("data of an earlier generation: %+v, %v", rec, err)
	}
	for bad, want := range map[string]string{
		"":                                 "not a generation record",
		good + good:                        "more than one",
		strings.Replace(good, "1", "2", 1): "format",
		strings.Replace(good, `"number":1`, `"number":0`, 1): "committed.number",
		strings.Replace(good, `"A"`, `"C"`, 1):               "committed.slot",
		strings.Replace(good, "abab", "zz", 1):               "committed.root_hash",
		strings.Replace(good, "data-1", "../x", 1):           "committed.data",
		strings.Replace(good, "data-1", "data-2", 1):         "committed.data",
		strings.Replace(good, "data-1", "data-01", 1):        "committed.data",
		strings.Repeat(" ", maxRecord+1):                     "more than",
	} {
		if _, err := Parse([]byte(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", bad, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"committed":{"number":1,"slot":"A","root_hash":"` + slottest.Hash + `","data":"data-1"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := Parse(data)
		if err == nil && rec.check() != nil {
			t.Errorf("%q was taken", data)
		}
	})
}
