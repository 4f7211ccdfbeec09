// SPDX-License-Identifier: Apache-2.0

//go:build engine

package gpt

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/internal/foreign"
)

// sgdisk finds no fault with our table, and reads what we wrote.
func TestForeignReadersAgree(t *testing.T) {
	img, table := filepath.Join(t.TempDir(), "disk.raw"), sample()
	writeDisk(t, img, table)
	out := foreign.MustRun(t, "sgdisk", "--verify", img)
	if !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk --verify: %s", out)
	}
	// sgdisk --print shows the disk, --info one partition.
	if list := foreign.MustRun(t, "sgdisk", "--print", img); !strings.Contains(list, strings.ToUpper(table.DiskGUID.String())) {
		t.Errorf("sgdisk does not show the id of the disk:\n%s", list)
	}
	for i, p := range table.Parts {
		info := foreign.MustRun(t, "sgdisk", "--info", strconv.Itoa(i+1), img)
		for _, want := range []string{
			"Partition GUID code: " + strings.ToUpper(p.Type.String()), "unique GUID: " + strings.ToUpper(p.UUID.String()),
			fmt.Sprintf("First sector: %d ", p.Offset/SectorSize), fmt.Sprintf("Partition size: %d sectors", p.Size/SectorSize),
			fmt.Sprintf("Attribute flags: %016X", p.Attrs), "Partition name: '" + p.Label + "'",
		} {
			if !strings.Contains(info, want) {
				t.Errorf("sgdisk does not show %q:\n%s", want, info)
			}
		}
	}
}

// systemd-repart accepts the disk, adds the state partition in the free space
// and leaves every other partition as it is; we read the result.
func TestForeignRepartAddsState(t *testing.T) {
	dir := t.TempDir()
	img, table := filepath.Join(dir, "disk.raw"), sample()
	writeDisk(t, img, table)
	defs := filepath.Join(dir, "repart.d")
	if err := os.Mkdir(defs, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := "[Partition]\nType=e6d6d379-f507-44c2-a23c-238f2a3df928\nLabel=state\nSizeMinBytes=512M\n"
	if err := os.WriteFile(filepath.Join(defs, "50-state.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	out := foreign.MustRun(t, "systemd-repart", "--dry-run=no", "--empty=refuse", "--no-pager", "--definitions="+defs, img)
	t.Log(out)
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := Decode(f, diskSize)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Parts) != len(table.Parts)+1 {
		t.Fatalf("%d partitions after repart, want one more than %d", len(got.Parts), len(table.Parts))
	}
	for i, p := range table.Parts {
		if got.Parts[i] != p {
			t.Errorf("repart changed partition %d: %+v, was %+v", i+1, got.Parts[i], p)
		}
	}
	if s := got.Parts[len(table.Parts)]; s.Type != TypeLVM || s.Label != "state" || s.Size < 512<<20 {
		t.Errorf("state is %+v", s)
	}
}

func writeDisk(t *testing.T, path string, table Table) {
	t.Helper()
	head, tail, err := Encode(table, diskSize)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	for at, b := range map[int64][]byte{0: head, diskSize - TailSize: tail} {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
}
