// SPDX-License-Identifier: Apache-2.0

package boottest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestCompareVersions holds it to the list in the UAPI Group's specification.
func TestCompareVersions(t *testing.T) {
	order := []string{"122.1", "123~rc1-1", "123", "123-a", "123-a.1", "123-1", "123-1.1", "123^post1", "123.a-1", "123.1-1", "123a-1", "124-1"}
	for i, a := range order {
		for j, b := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := CompareVersions(a, b); got != want {
				t.Errorf("%s and %s: %d, want %d", a, b, got, want)
			}
		}
	}
	for a, b := range map[string]string{"": "", "11": "011", "systemd-123": "systemd-123", "foo_": "foo"} {
		if CompareVersions(a, b) != 0 {
			t.Errorf("%q and %q differ", a, b)
		}
	}
}

func TestBoot(t *testing.T) {
	hash := func(n int) string { return fmt.Sprintf("%064x", n) }
	const dir = "EFI/Linux/holdfast-000000000"
	for _, c := range []struct {
		name  string
		files map[string]int
		want  int
		after string
	}{
		{"committed", map[string]int{"1.efi": 1}, 1, "1.efi"},
		{"trial first", map[string]int{"1.efi": 1, "2+1.efi": 2}, 2, "2+0-1.efi"},
		{"spent last", map[string]int{"1.efi": 1, "2+0-1.efi": 2}, 1, "1.efi"},
		{"newest committed", map[string]int{"1.efi": 1, "2.efi": 2}, 2, "2.efi"},
		{"nothing else but a spent one", map[string]int{"2+0-1.efi": 2}, 2, "2+0-2.efi"},
		{"by number, not by text", map[string]int{"9.efi": 1, "010.efi": 2}, 2, "010.efi"},
		{"half an image is no entry", map[string]int{"1.efi": 1, "2+1.efi": 0}, 1, "1.efi"},
	} {
		d := &Disk{}
		d.Put0("EFI/BOOT/BOOTX64.EFI", Program("x"))
		for name, n := range c.files {
			content := UKI(hash(n))
			if n == 0 {
				content = content[:100]
			}
			d.Put0(dir+name, content)
		}
		b, err := Boot(d)
		if err != nil || b.RootHash != hash(c.want) || !strings.HasSuffix(b.After, c.after) {
			t.Errorf("%s: %+v, %v", c.name, b, err)
		}
	}
	if _, err := Boot(&Disk{}); err == nil {
		t.Error("an empty disk boots")
	}
	d := &Disk{}
	d.Put0("EFI/systemd/systemd-bootx64.efi", Program("x"))
	if _, err := Boot(d); err == nil || !strings.Contains(err.Error(), "no image") {
		t.Errorf("no images: %v", err)
	}
	d.Put0(dir+"2+1.efi", UKI(hash(2)))
	d.Armed, d.Cut = true, 0
	if _, err := Boot(d); !errors.Is(err, ErrCut) {
		t.Errorf("cut before the rename: %v", err)
	}
	d.Power()
	if b, err := Boot(d); err != nil || b.RootHash != hash(2) || b.After == b.Name {
		t.Errorf("after the cut: %+v, %v", b, err)
	}
}
