// SPDX-License-Identifier: Apache-2.0

package uki

import (
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/internal/efitest"
)

func TestSections(t *testing.T) {
	got, err := Sections(efitest.UKI("kernel", "initrd", "root=/dev/mapper/root"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{".linux": "kernel", ".initrd": "initrd", ".cmdline": "root=/dev/mapper/root", ".osrel": "ID=holdfast\n"} {
		if string(got[name]) != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"no program", []byte("hello"), "MZ"},
		{"no kernel", efitest.Program(efitest.Section{Name: ".text", Data: []byte("x")}), "without .linux"},
		{"two profiles", efitest.Program(efitest.Section{Name: ".linux", Data: []byte("x")}, efitest.Section{Name: ".linux", Data: []byte("y")}), "multi-profile"},
	} {
		if _, err := Sections(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func FuzzSections(f *testing.F) {
	f.Add(efitest.UKI("kernel", "initrd", "root=x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sections, err := Sections(b)
		if err == nil && len(sections[".linux"]) > len(b) {
			t.Fatal("a section larger than the file")
		}
	})
}
