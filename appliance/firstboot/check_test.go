// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
	"github.com/holdfast/holdfast/appliance/status"
)

func TestCheckData(t *testing.T) {
	home := status.DataDisk{Group: group, Volume: firstData}
	gen := slot.First(slot.Root{Letter: "A", Hash: slottest.Hash}).Committed
	const (
		state = "30 22 254:2 / /var rw - xfs /dev/mapper/holdfast-state rw\n"
		data  = "31 30 254:3 / /var/lib/holdfast/data rw - xfs /dev/mapper/holdfast-data--1 rw\n"
		bind  = "32 30 254:3 /volumes /var/lib/docker/volumes rw - xfs /dev/mapper/holdfast-data--1 rw\n"
	)
	for _, c := range []struct{ name, mounts, want string }{
		{"as it must be", state + data + bind, ""},
		{"no data", state, "nothing is mounted at /var/lib/holdfast/data"},
		{"no volumes", state + data, "nothing is mounted at /var/lib/docker/volumes"},
		{"another volume", state + strings.ReplaceAll(data+bind, "254:3", "254:2"), "volume holdfast-state, want / of holdfast-data--1"},
		{"a folder of state", state + "31 30 254:2 /x /var/lib/holdfast/data rw - xfs /dev/mapper/holdfast-data--1 rw\n" + bind, "shows /x of volume holdfast-state"},
		{"another folder", state + data + strings.Replace(bind, "/volumes", "/secrets", 1), "shows /secrets"},
		{"memory on top", state + data + bind + "40 31 0:44 / /var/lib/holdfast/data rw - tmpfs tmpfs rw\n", "no logical volume"},
	} {
		root := t.TempDir()
		slottest.Put(t, root, "sys/dev/block/254:2/dm/name", "holdfast-state\n")
		slottest.Put(t, root, "sys/dev/block/254:3/dm/name", "holdfast-data--1\n")
		slottest.Put(t, root, "proc/self/mountinfo", c.mounts)
		err := CheckData(root, home, gen, dataPlace)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (!errors.Is(err, ErrNoData) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	root := t.TempDir()
	slottest.Put(t, root, "sys/dev/block/254:3/dm/name", "holdfast--data-data--1\n")
	slottest.Put(t, root, "proc/self/mountinfo", state+data+bind)
	if err := CheckData(root, home, gen, dataPlace); !errors.Is(err, ErrNoData) {
		t.Errorf("data of the other group: %v", err)
	}
	home.Group = dataGroup
	if err := CheckData(root, home, gen, dataPlace); err != nil {
		t.Errorf("data disk: %v", err)
	}
	home.Volume = "data-2"
	if err := CheckData(root, home, gen, dataPlace); !errors.Is(err, ErrNoData) {
		t.Errorf("another generation's: %v", err)
	}
}
