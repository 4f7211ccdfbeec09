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

func storage(t testing.TB, f *fakeLVM) error {
	t.Helper()
	return Storage(context.Background(), f.env())
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
	}, "\n")
	if got := strings.Join(f.ran, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	f.ran = nil
	if err := storage(t, f); err != nil || len(f.ran) != 0 {
		t.Errorf("again: %v, %v", f.ran, err)
	}
}

// TestStateTakesWhatDataLeaves: once the data lives elsewhere state has the
// pool, and nothing but a home elsewhere gives it that.
func TestStateTakesWhatDataLeaves(t *testing.T) {
	for _, c := range []struct {
		tags []string
		use  Use
	}{
		{nil, Both},
		{[]string{"theirs"}, Both},
		{[]string{tag(tagHome, homeLocal)}, Both},
		{[]string{tag(tagClaim, "AAAAAA-0000-0000-0000-0000-0000-000001")}, Both},
		{[]string{tag(tagHome, "AAAAAA-0000-0000-0000-0000-0000-000001")}, StateOnly},
	} {
		f := newLVM(t, 4*gib)
		if err := storage(t, f); err != nil {
			t.Fatal(err)
		}
		f.sys.tags = c.tags
		if err := storage(t, f); err != nil {
			t.Fatal(err)
		}
		want, err := Share(f.sys.total(), fakeExtent, c.use)
		if err != nil || f.sys.volumes[stateName].bytes != want.State {
			t.Errorf("%q: state has %d, want %d, %v", c.tags, f.sys.volumes[stateName].bytes, want.State, err)
		}
	}
	f := newLVM(t, 4*gib)
	if err := storage(t, f); err != nil {
		t.Fatal(err)
	}
	f.sys.tags = []string{tag(tagHome, homeLocal), tag(tagHome, "x")}
	if err := storage(t, f); err == nil || !strings.Contains(err.Error(), "two tags") {
		t.Errorf("two homes: %v", err)
	}
}

// whole says what must hold of a box that is up, whatever happened before.
func whole(t *testing.T, f *fakeLVM) {
	t.Helper()
	want, err := Share(f.sys.total(), fakeExtent, Both)
	if err != nil {
		t.Fatal(err)
	}
	v := f.sys.volumes[stateName]
	if v == nil || !v.active || v.xfs == 0 || !v.tag || v.bytes != want.State || len(f.sys.volumes) != 2 {
		t.Errorf("want pool and state:\n%s", f.sys)
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
			f.sys.bytes = 40 * gib
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
					t.Fatalf("boot after the cut: %v\n%s", err, f.sys)
				}
				whole(t, f)
			})
		}
	}
}

func TestStorageRefuses(t *testing.T) {
	f := newLVM(t, 4*gib)
	f.sys.foreign = "ext4"
	if err := storage(t, f); err == nil || !strings.Contains(err.Error(), "/dev/vda5 (state) holds ext4") || len(f.ran) > 0 {
		t.Errorf("foreign file system: %v, ran %v", err, f.ran)
	}
	f = newLVM(t, 4*gib)
	f.sys.pv, f.sys.known, f.sys.group = "x", f.sys.bytes, "backup"
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

func TestShareNeverOvercommits(t *testing.T) {
	for _, use := range []Use{Both, StateOnly, DataOnly} {
		for _, total := range []int64{1 * gib, 3 * gib, 20 * gib, 500 * gib, 20 << 40} {
			total = total / fakeExtent * fakeExtent
			s, err := Share(total, fakeExtent, use)
			if err != nil {
				t.Errorf("%s: %v", size(total), err)
				continue
			}
			if s.State+s.Data+s.Snapshot != s.Pool || s.Pool+2*s.Metadata+s.Reserve > total {
				t.Errorf("%s is overcommitted: %+v", size(total), s)
			}
			if (s.Data == 0) != (use == StateOnly) || (s.State == 0) != (use == DataOnly) {
				t.Errorf("use %d: %+v", use, s)
			}
			// 64 bytes for each chunk, twice with a snapshot.
			if need := min(2*s.Pool/chunk*64, maxMetadata); s.Metadata < need {
				t.Errorf("%s: metadata %d, want %d", size(total), s.Metadata, need)
			}
		}
		ext := fakeExtent
		if _, err := Share(least(ext)/ext*ext+ext, ext, use); err != nil {
			t.Errorf("the size that the refusal asks for is refused: %v", err)
		}
	}
	if _, err := Share(leastDisk-4*mib, fakeExtent, DataOnly); err != nil {
		t.Errorf("the least data disk is too small: %v", err)
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"report":[{"lv":[{"lv_name":"pool","lv_size":"1","lv_tags":"","lv_active":"active","lv_metadata_size":""}]}]}`))
	f.Add([]byte(`{"report":[{"pv":[{"vg_name":"holdfast-data","pv_size":"1","pe_start":"1"}],"vg":[{"vg_size":"1","vg_free":"1","vg_extent_size":"1","pv_count":"1"}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := Device{Name: "/dev/vdb"}
		if err := observeGroup(context.Background(), Env{Run: answer(data)}, &d, dataGroup); err != nil || d.Group == nil {
			return
		}
		for _, v := range d.Group.Volumes {
			if v.Bytes < 0 || v.Metadata < 0 || d.Group.Extent <= 0 {
				t.Errorf("%q gave %+v", data, v)
			}
		}
	})
}

type answer []byte

func (a answer) Run(context.Context, ...string) ([]byte, error) { return a, nil }
