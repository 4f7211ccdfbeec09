// SPDX-License-Identifier: Apache-2.0

//go:build engine

package esp

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/internal/foreign"
)

// fileDisk is a volume in a file, as the editor has it on a box.
type fileDisk struct{ *os.File }

// fsck.fat finds nothing to say after any number of our changes, mtools reads
// what we wrote, and we change what mtools wrote.
func TestForeignReadersAgreeAfterEdits(t *testing.T) {
	img := filepath.Join(t.TempDir(), "esp.img")
	foreign.MustRun(t, "mkfs.fat", "-F32", "-C", img, "65536")
	foreign.MustRun(t, "mmd", "-i", img, "::/EFI")
	foreign.MustRun(t, "mmd", "-i", img, "::/EFI/Linux")
	kernel := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(kernel, []byte(strings.Repeat("kernel", 4000)), 0o644); err != nil {
		t.Fatal(err)
	}
	foreign.MustRun(t, "mcopy", "-i", img, kernel, "::/EFI/Linux/holdfast-0000000001.efi")
	foreign.MustRun(t, "mcopy", "-i", img, kernel, "::/EFI/Linux/holdfast-0000000002+1.efi")
	// As firmware counts a boot.
	foreign.MustRun(t, "mren", "-i", img, "::/EFI/Linux/holdfast-0000000002+1.efi", "holdfast-0000000002+0-1.efi")
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := Edit(fileDisk{f}, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	const l = "EFI/Linux/holdfast-000000000"
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 40 {
		for what, err := range map[string]error{
			"bless":  v.Rename(l+"2+0-1.efi", l+"2.efi"),
			"remove": v.Remove(l + "1.efi"),
			"put":    v.Put(l+"1.efi", strings.NewReader(strings.Repeat("k", r.IntN(200000))), 1<<20),
			"keep":   v.Put(fmt.Sprintf("EFI/holdfast/holdfast-%010d.efi", i), strings.NewReader("kept"), 1<<20),
		} {
			if err != nil {
				t.Fatal(i, what, err)
			}
		}
		if err := v.Rename(l+"2.efi", l+"2+0-1.efi"); err != nil {
			t.Fatal(err)
		}
	}
	out := foreign.MustRun(t, "fsck.fat", "-n", "-v", img)
	for _, bad := range []string{"differ", "Dirty", "wrong", "Wrong", "correct", "invalid", "Orphan", "Reclaimed"} {
		if strings.Contains(out, bad) {
			t.Errorf("fsck.fat: %s", out)
		}
	}
	list := foreign.MustRun(t, "mdir", "-/", "-b", "-a", "-i", img, "::")
	for _, want := range []string{l + "1.efi", l + "2+0-1.efi", "EFI/holdfast/holdfast-0000000039.efi"} {
		if !strings.Contains(list, "::/"+want+"\n") {
			t.Errorf("mdir does not list %s:\n%s", want, list)
		}
	}
	if got := foreign.MustRun(t, "mtype", "-i", img, "::/"+l+"2+0-1.efi"); got != strings.Repeat("kernel", 4000) {
		t.Errorf("mtype: %d bytes", len(got))
	}
}
