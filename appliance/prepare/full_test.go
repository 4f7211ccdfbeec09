// SPDX-License-Identifier: Apache-2.0

//go:build engine

package prepare

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk that is filled by somebody else while a release is fetched: told so,
// and gone on with when there is room again.
func TestDiskFillsUp(t *testing.T) {
	p := makePair(t)
	b := newBox(t, &p.old)
	if err := unix.Mount("tmpfs", b.state, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(b.state, unix.MNT_DETACH)
	hog := filepath.Join(b.state, "hog")
	d := tapOf(t, p.new.dir)
	d.after, d.cut = 10_000, func() { // before room was taken
		f, err := os.Create(hog)
		ok(t, err)
		for err == nil {
			_, err = f.Write(make([]byte, 64<<10))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%v", err)
		}
		f.Close()
	}
	// The manifest of the first image is what comes when the disk is full.
	d.after = p.new.size + 2
	_, err := from(t.Context(), d, b.request(p.new), nil)
	var room *NoRoomError
	if !errors.As(err, &room) || !strings.Contains(err.Error(), stateVolume) {
		t.Fatalf("%v", err)
	}
	ok(t, os.Remove(hog))
	res, err := Run(t.Context(), b.request(p.new), nil)
	ok(t, err)
	b.check(p.new, res)
	// Once room was taken nobody can take it.
	b2 := newBox(t, &p.old)
	if err := unix.Mount("tmpfs", b2.state, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(b2.state, unix.MNT_DETACH)
	hog = filepath.Join(b2.state, "hog")
	d2 := tapOf(t, p.new.dir)
	d2.after, d2.cut = 150_000, d.cut
	res, err = from(t.Context(), d2, b2.request(p.new), nil)
	ok(t, err)
	b2.check(p.new, res)
}
