// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/rootfs"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

// TestBakedRules: what is loaded before anything of ours runs is what Close
// would load, and both files touch no other table.
func TestBakedRules(t *testing.T) {
	closed, err := fs.ReadFile(rootfs.Spec().Files, strings.TrimPrefix(closedFile, "/"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := Rules(Ports{})
	if err != nil || string(closed) != want {
		t.Errorf("%s is\n%s\nwant\n%s%v", closedFile, closed, want, err)
	}
	open, err := fs.ReadFile(rootfs.Spec().Files, strings.TrimPrefix(openFile, "/"))
	if head, _, _ := strings.Cut(want, " {"); err != nil || !strings.HasPrefix(head, string(open)) {
		t.Errorf("%s is\n%s%v", openFile, open, err)
	}
	for _, text := range []string{string(closed), string(open)} {
		if strings.Contains(text, "flush") {
			t.Errorf("other tables are flushed:\n%s", text)
		}
	}
	unit, err := fs.ReadFile(rootfs.Spec().Files, "usr/lib/systemd/system/holdfast-ingress.service")
	if err != nil || !strings.Contains(string(unit), "nft --file "+closedFile) {
		t.Errorf("the unit does not load %s: %v", closedFile, err)
	}
}

func TestRules(t *testing.T) {
	for _, c := range []struct {
		p         Ports
		has, lack string
		fails     bool
	}{
		{p: Ports{}, has: "udp dport != { 68, 546 } udp dport < 32768 drop"},
		{p: Ports{Admin: []int{9323, 22, 9323}}, has: "tcp dport { 22, 9323 } accept"},
		{p: Ports{UDP: []int{51820, 53}}, has: "udp dport { 53, 51820 } drop", lack: "32768"},
		{p: Ports{UDP: []int{}}, has: "tcp flags & (syn | ack) == syn drop", lack: "udp dport"},
		{p: Ports{Admin: []int{0}}, fails: true},
		{p: Ports{UDP: []int{65536}}, fails: true},
		{p: Ports{UDP: make([]int, maxPorts+1)}, fails: true},
	} {
		got, err := Rules(c.p)
		if (err != nil) != c.fails || !strings.Contains(got, c.has) || c.lack != "" && strings.Contains(got, c.lack) {
			t.Errorf("%+v: %v\n%s", c.p, err, got)
		}
	}
}

type runner struct {
	ran  []string
	fail bool
}

func (r *runner) Run(_ context.Context, argv ...string) ([]byte, error) {
	r.ran = append(r.ran, strings.Join(argv, " "))
	if r.fail {
		return nil, errors.New("no nftables here")
	}
	return nil, nil
}

func TestBoot(t *testing.T) {
	good := slot.First(slot.Root{Letter: "A", Hash: slottest.Hash})
	other := good
	other.Committed.Slot, other.Committed.RootHash = "B", strings.Repeat("cd", 32)
	trial := other
	trial.Trial = &slot.Trial{Kind: slot.Upgrade, Origin: "data-1", Reboot: true,
		Generation: slot.Generation{Number: 2, Slot: "A", RootHash: slottest.Hash, Data: "data-2"}}
	stack := good
	stack.Trial = &slot.Trial{Kind: slot.Upgrade, Origin: "data-1",
		Generation: slot.Generation{Number: 2, Slot: "A", RootHash: slottest.Hash, Data: "data-2"}}
	const state = "31 22 254:9 / /var rw - xfs /dev/mapper/holdfast-state rw\n"
	for _, c := range []struct {
		name, mounts string
		rec          *slot.Record
		text         string
		opens        bool
		err          string
	}{
		{name: "committed", mounts: state, rec: &good, opens: true},
		{name: "first boot", mounts: state, opens: true},
		{name: "no state", err: "state is not mounted"},
		{name: "trial", mounts: state, rec: &trial},
		{name: "stack-only trial", mounts: state, rec: &stack},
		{name: "foreign root", mounts: state, rec: &other, err: "stays closed"},
		{name: "damaged record", mounts: state, text: "{", err: "stays closed"},
	} {
		root := slottest.Box(t, "root-a", "esp", "root-a", "root-b", "state")
		b, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
		if err != nil {
			t.Fatal(err)
		}
		slottest.Put(t, root, "proc/self/mountinfo", string(b)+c.mounts)
		slottest.Put(t, root, "var/lib/holdfast/x", "")
		if c.rec != nil {
			if err := slot.Save(root, *c.rec); err != nil {
				t.Fatal(c.name, err)
			}
		}
		if c.text != "" {
			slottest.Record(t, root, c.text)
		}
		r := &runner{}
		err = Boot(context.Background(), Env{Root: root, Run: r})
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
		if opened := strings.Join(r.ran, "\n") == "nft --file "+openFile; opened != c.opens || !opened && len(r.ran) > 0 {
			t.Errorf("%s: ran %q, opens is to be %v", c.name, r.ran, c.opens)
		}
	}
}

func TestClose(t *testing.T) {
	r := &runner{}
	env := Env{Root: t.TempDir(), Run: r}
	if err := Close(context.Background(), env, Ports{UDP: []int{53}}); err != nil || len(r.ran) != 1 || r.ran[0] != "nft --file "+portsFile {
		t.Errorf("%v, ran %q", err, r.ran)
	}
	b, err := os.ReadFile(env.path(portsFile))
	if err != nil || !strings.Contains(string(b), "udp dport { 53 } drop") {
		t.Errorf("%v\n%s", err, b)
	}
	r.fail = true
	if err := Close(context.Background(), env, Ports{}); err == nil || !strings.Contains(err.Error(), "cannot be closed") {
		t.Errorf("nft fails: %v", err)
	}
	if err := Open(context.Background(), env); err == nil || !strings.Contains(err.Error(), "cannot be opened") {
		t.Errorf("nft fails: %v", err)
	}
}
