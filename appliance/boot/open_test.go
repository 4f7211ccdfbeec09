// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/boot"
	"github.com/holdfast/holdfast/appliance/boot/boottest"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
	"github.com/holdfast/holdfast/images/esp"
)

// espSize is the least that is FAT32.
const espSize = 34 << 20

// withESP is a box whose ESP, vda1, has generation 1 committed.
func withESP(t *testing.T) string {
	t.Helper()
	root := slottest.Box(t, "root-a", "esp", "root-a", "root-b", "state")
	f, err := os.Create(filepath.Join(root, "dev/vda1"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(espSize); err != nil {
		t.Fatal(err)
	}
	err = esp.Write(f, espSize, []esp.File{
		{Path: loader, Data: boottest.Program("one")}, {Path: systemd, Data: boottest.Program("one")},
		{Path: linuxDir + "holdfast-0000000001.efi", Data: boottest.UKI(hash(1))},
	}, 7, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestOnAPartition goes through an upgrade on the real file system: each step
// opens it anew, as on a box, and the model of firmware boots from it.
func TestOnAPartition(t *testing.T) {
	root := withESP(t)
	do := func(what string, act func(e *boot.ESP) error) {
		t.Helper()
		e, err := boot.Open(t.Context(), boot.Env{Root: root})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := errors.Join(act(e), e.Close()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	boots := func(n int) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(root, "dev/vda1"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		v, err := esp.Edit(f, espSize)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := boottest.Boot(v); err != nil || b.RootHash != hash(n) {
			t.Fatalf("booted %+v, %v; want %d", b, err, n)
		}
	}
	boots(1)
	do("place", func(e *boot.ESP) error { return e.PlaceTrial(2, bytes.NewReader(boottest.UKI(hash(2)))) })
	boots(2)
	boots(1)
	do("rearm", func(e *boot.ESP) error { return e.Rearm(2) })
	boots(2)
	do("bless", func(e *boot.ESP) error { return e.Bless(2) })
	do("keep", func(e *boot.ESP) error { return e.Keep(1) })
	do("loader", func(e *boot.ESP) error { _, err := e.UpdateLoader(boottest.Program("two")); return err })
	boots(2)
	do("from kept", func(e *boot.ESP) error { return e.PlaceTrialFromKept(1, 3) })
	boots(1)
	do("entries", func(e *boot.ESP) error {
		list, err := e.Entries()
		if len(list) != 3 || list[0].Place != boot.Kept || list[1].Number != 2 || !list[2].Spent() {
			t.Errorf("%+v", list)
		}
		return err
	})
}

func TestOpen(t *testing.T) {
	root := withESP(t)
	e, err := boot.Open(t.Context(), boot.Env{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("no longer"))
	defer cancel()
	if _, err := boot.Open(ctx, boot.Env{Root: root}); err == nil || !strings.Contains(err.Error(), "another process of holdfast: no longer") {
		t.Errorf("a second one: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err = boot.Open(t.Context(), boot.Env{Root: root}); err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(root, "dev/vda1"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := boot.Open(t.Context(), boot.Env{Root: root}); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("a damaged one: %v", err)
	}
	root = slottest.Box(t, "root-a", "root-a")
	if _, err := boot.Open(t.Context(), boot.Env{Root: root}); err == nil || !strings.Contains(err.Error(), "labelled esp") {
		t.Errorf("no ESP: %v", err)
	}
}
