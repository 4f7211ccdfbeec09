// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/gpt"
)

var update = flag.Bool("update", false, "rewrite the goldens in testdata")

func spec() Spec {
	s := Spec{ESPSize: 256 * mib, SlotSize: 768 * mib, FactorySize: 310*mib + 1, RootSize: 171 * mib, Seed: [32]byte{1, 2, 3}}
	copy(s.RootUUID[:], "sixteen byte key")
	return s
}

func TestGoldens(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Spec)
	}{
		{"default", func(*Spec) {}},
		{"longer-disk", func(s *Spec) { s.MinDiskSize = 20*gib + 5 }},
		{"disk-shorter-than-free-space", func(s *Spec) { s.MinDiskSize = 2600 * mib }},
		{"full-slot", func(s *Spec) { s.SlotSize, s.RootSize = 300*mib, 300*mib }},
		{"odd-sizes", func(s *Spec) { s.ESPSize, s.SlotSize = 100*mib+1, 400*mib+512 }},
		{"other-seed", func(s *Spec) { s.Seed[0]++ }},
	} {
		s := spec()
		c.change(&s)
		table, err := Plan(s)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		path := filepath.Join("testdata", c.name+".golden")
		if *update {
			if err := os.WriteFile(path, []byte(table.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := table.String(); got != string(want) {
			t.Errorf("%s: got\n%swant\n%s(go test ./images/layout -update rewrites it)", c.name, got, want)
		}
	}
}

// What a plan promises whatever the sizes: alignment, order, room, and a table
// that can be written.
func TestPlanHolds(t *testing.T) {
	for esp := int64(64); esp < 600; esp += 97 {
		for slot := int64(171); slot < 2000; slot += 331 {
			for factory := int64(1); factory < 3*gib; factory = factory*7 + 11 {
				s := spec()
				s.ESPSize, s.SlotSize, s.FactorySize = esp*mib, slot*mib, factory
				table, err := Plan(s)
				if err != nil {
					t.Fatal(err)
				}
				end := int64(mib)
				for i, label := range []string{ESPLabel, RootALabel, RootBLabel, FactoryLabel} {
					p := table.Parts[i]
					if p.Label != label || p.Offset != end || p.Offset%mib != 0 || p.Size%mib != 0 {
						t.Fatalf("%+v: partition %d: %+v", s, i, p)
					}
					end += p.Size
				}
				if p, _ := table.Part(FactoryLabel); p.Size < factory || p.Size >= factory+mib {
					t.Fatalf("factory of %d bytes for %d", p.Size, factory)
				}
				if room := table.DiskSize - end; room < gib || table.DiskSize%mib != 0 {
					t.Fatalf("%d bytes free, disk of %d", room, table.DiskSize)
				}
				head, tail, err := gpt.Encode(table.Table, table.DiskSize)
				if err != nil || len(head) == 0 || len(tail) == 0 {
					t.Fatal(err)
				}
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		change func(*Spec)
		want   string
	}{
		{func(s *Spec) { s.SlotSize, s.RootSize = 256*mib, 301*mib }, "slot of 256 MiB is too small for the root (301 MiB): set slot_size to at least 301MiB"},
		{func(s *Spec) { s.SlotSize, s.RootSize = 256*mib, 301*mib+1 }, "slot of 256 MiB is too small for the root (301.1 MiB): set slot_size to at least 302MiB"},
		{func(s *Spec) { s.SlotSize, s.RootSize = 256*mib+mib/2, 256*mib+mib/2 }, "slot of 256.5 MiB is too small for the root (256.5 MiB): set slot_size to at least 257MiB"},
		{func(s *Spec) { s.MinDiskSize = gib }, "disk_size of 1024 MiB is too small: partitions need 2105 MiB, set disk_size to at least 2105MiB or leave it out"},
		{func(s *Spec) { s.ESPSize = 32 * mib }, "esp_size of 32 MiB is too small: set it to at least 64MiB"},
		{func(s *Spec) { s.RootSize = 0 }, "size of the root of 0 bytes is out of range: at least 1 byte, at most 64 TiB"},
		{func(s *Spec) { s.SlotSize = -1 }, "slot_size of -1 bytes is out of range: at least 1 byte, at most 64 TiB"},
		{func(s *Spec) { s.FactorySize = 1 << 62 }, "size of the factory of 4611686018427387904 bytes is out of range: at least 1 byte, at most 64 TiB"},
		{func(s *Spec) { s.RootUUID = [16]byte{} }, "the root has no id: it is the first half of the root hash"},
	} {
		s := spec()
		c.change(&s)
		if _, err := Plan(s); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestDeriveGUID(t *testing.T) {
	a, b := DeriveGUID([32]byte{1}, "esp"), DeriveGUID([32]byte{1}, "factory")
	if a == b || a == DeriveGUID([32]byte{2}, "esp") || a != DeriveGUID([32]byte{1}, "esp") {
		t.Error("ids do not follow seed and label")
	}
	if s := a.String(); s[14] != '8' || strings.IndexByte("89ab", s[19]) < 0 {
		t.Errorf("%s is not an RFC 9562 id of version 8", s)
	}
	if DeriveVolumeID([32]byte{1}, "esp") == 0 || bytes.Equal(a[:4], make([]byte, 4)) {
		t.Error("empty id")
	}
}
