// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

// box is a root whose state partition the model stands for.
func box(t testing.TB, f *fakeLVM) Env {
	root := slottest.Box(t, "root-a", "esp", "root-a", "root-b", "factory", "state")
	slottest.Put(t, root, "sys/devices/pci0/block/vda/vda5/size", fmt.Sprintln(f.bytes/512))
	return Env{Root: root, Run: f}
}

func storage(t testing.TB, f *fakeLVM) error {
	t.Helper()
	return Storage(context.Background(), box(t, f))
}

func TestFirstBootPlan(t *testing.T) {
	f := newLVM(t, 4*gib)
	if err := storage(t, f); err != nil {
		t.Fatal(err)
	}
	lvm := func(verb, rest string) string { return "lvm " + verb + " --devices /dev/vda5 --yes " + rest }
	want := strings.Join([]string{
		lvm("pvcreate", "/dev/vda5"),
		lvm("vgcreate", "holdfast /dev/vda5"),
		lvm("lvcreate", "--type thin-pool --name pool --size 4232052736b --poolmetadatasize 16777216b --chunksize 131072b --poolmetadataspare y holdfast"),
		lvm("lvcreate", "--type thin --name state --virtualsize 1690304512b --wipesignatures y --thinpool pool holdfast"),
		"mkfs.xfs -q -f -K -L state /dev/mapper/holdfast-state",
		lvm("lvchange", "--addtag holdfast.formatted holdfast/state"),
		lvm("lvcreate", "--type thin --name data-1 --virtualsize 1698693120b --wipesignatures y --thinpool pool holdfast"),
		"mkfs.xfs -q -f -K -L data-1 /dev/mapper/holdfast-data--1",
		lvm("lvchange", "--addtag holdfast.formatted holdfast/data-1"),
	}, "\n")
	if got := strings.Join(f.ran, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	f.ran = nil
	if err := storage(t, f); err != nil || len(f.ran) != 0 {
		t.Errorf("again: %v, %v", f.ran, err)
	}
}

// whole says what must hold of a box that is up, whatever happened before.
func whole(t *testing.T, f *fakeLVM) {
	t.Helper()
	want, err := Share(f.total(), fakeExtent)
	if err != nil {
		t.Fatal(err)
	}
	for name, bytes := range map[string]int64{stateName: want.State, firstData: want.Data} {
		v := f.volumes[name]
		if v == nil || !v.active || !v.xfs || !v.tag || v.bytes != bytes {
			t.Errorf("volume %s is not as it should be:\n%s", name, f)
		}
	}
	if len(f.volumes) != 3 {
		t.Errorf("want pool and two volumes:\n%s", f)
	}
}

// TestPowerCuts cuts the power before and after every act of a first boot and
// of a boot on a grown disk; the next boot must end whole.
func TestPowerCuts(t *testing.T) {
	for _, start := range []struct {
		name string
		make func() *fakeLVM
	}{
		{"first boot", func() *fakeLVM { return newLVM(t, 4*gib) }},
		{"grown disk", func() *fakeLVM {
			f := newLVM(t, 4*gib)
			if err := storage(t, f); err != nil {
				t.Fatal(err)
			}
			f.bytes = 40 * gib
			f.reboot()
			return f
		}},
	} {
		full := start.make()
		if err := storage(t, full); err != nil {
			t.Fatal(err)
		}
		for cut := range 2 * len(full.ran) {
			t.Run(fmt.Sprintf("%s/%d", start.name, cut), func(t *testing.T) {
				f := start.make()
				f.cut = cut
				if err := storage(t, f); !errors.Is(err, errCut) {
					t.Fatalf("cut %d: %v", cut, err)
				}
				f.reboot()
				if err := storage(t, f); err != nil {
					t.Fatalf("boot after the cut: %v\n%s", err, f)
				}
				whole(t, f)
			})
		}
	}
}

func TestStorageRefuses(t *testing.T) {
	f := newLVM(t, 4*gib)
	f.foreign = "ext4"
	if err := storage(t, f); err == nil || !strings.Contains(err.Error(), "/dev/vda5 (state) holds ext4") || len(f.ran) > 0 {
		t.Errorf("foreign file system: %v, ran %v", err, f.ran)
	}
	f = newLVM(t, 4*gib)
	f.pv, f.known, f.group = true, f.bytes, "backup"
	if err := storage(t, f); err == nil || !strings.Contains(err.Error(), `volume group "backup"`) || len(f.ran) > 0 {
		t.Errorf("foreign group: %v, ran %v", err, f.ran)
	}
	f = newLVM(t, 512*mib)
	if err := storage(t, f); err == nil || !strings.Contains(err.Error(), "larger disk") {
		t.Errorf("small disk: %v", err)
	}
	root := slottest.Box(t, "root-a", "esp", "root-a")
	if err := Storage(context.Background(), Env{Root: root, Run: f}); err == nil || !strings.Contains(err.Error(), "no state partition") {
		t.Errorf("no partition: %v", err)
	}
}

func TestTrialIsNotResized(t *testing.T) {
	f := newLVM(t, 4*gib)
	if err := storage(t, f); err != nil {
		t.Fatal(err)
	}
	was := f.volumes[firstData].bytes
	f.volumes["data-2"] = &fakeVolume{bytes: was, active: true, tag: true, xfs: true}
	f.bytes = 40 * gib
	f.reboot()
	if err := storage(t, f); err != nil {
		t.Fatal(err)
	}
	if a, b := f.volumes[firstData], f.volumes["data-2"]; a.bytes != was || b.bytes != was || !a.active || !b.active {
		t.Errorf("snapshot and origin differ:\n%s", f)
	}
}

func TestShareNeverOvercommits(t *testing.T) {
	for _, total := range []int64{1 * gib, 3 * gib, 20 * gib, 500 * gib, 20 << 40} {
		total = total / fakeExtent * fakeExtent
		s, err := Share(total, fakeExtent)
		if err != nil {
			t.Errorf("%s: %v", size(total), err)
			continue
		}
		if s.State+s.Data+s.Snapshot != s.Pool || s.Pool+2*s.Metadata+s.Reserve > total {
			t.Errorf("%s is overcommitted: %+v", size(total), s)
		}
		// 64 bytes for each chunk, twice with a snapshot.
		if need := min(2*s.Pool/chunk*64, maxMetadata); s.Metadata < need {
			t.Errorf("%s: metadata %d, want %d", size(total), s.Metadata, need)
		}
	}
	ext := fakeExtent
	if _, err := Share(least(ext)/ext*ext+ext, ext); err != nil {
		t.Errorf("the size that the refusal asks for is refused: %v", err)
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"report":[{"lv":[{"lv_name":"pool","lv_size":"1","lv_tags":"","lv_active":"active","lv_metadata_size":""}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := Disk{Name: "/dev/vda5"}
		if err := observeVolumes(context.Background(), Env{Run: answer(data)}, &d); err != nil {
			return
		}
		for _, v := range d.Volumes {
			if v.Bytes < 0 || v.Metadata < 0 {
				t.Errorf("%q gave %+v", data, v)
			}
		}
	})
}

type answer []byte

func (a answer) Run(context.Context, ...string) ([]byte, error) { return a, nil }
