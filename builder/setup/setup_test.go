// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNewEnough(t *testing.T) {
	for out, want := range map[string]bool{
		"Packer v1.16.0\n": true,
		"Packer v1.11.0\n\nYour version of Packer is out of date!": true,
		"Packer v1.10.3\n": false,
		"Packer v2.0.0\n":  true,
		"0 0\n":            false, // cracklib's packer
		"":                 false,
	} {
		if got := newEnough(out); got != want {
			t.Errorf("newEnough(%q) = %v", out, got)
		}
	}
}

// The pin is read from the nested module as it is.
func TestPinIsRead(t *testing.T) {
	text, err := os.ReadFile("../packer/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if m := packerPinned.FindSubmatch(text); m == nil || string(m[1]) != "v1.16.0" {
		t.Errorf("pin: %q", m)
	}
}

func TestMissing(t *testing.T) {
	no := func(string) bool { return false }
	yes := func(string) bool { return true }
	if got := missing(needs, yes, yes); got != nil {
		t.Errorf("nothing is missing, got %v", got)
	}
	if got := missing(needs, no, yes); !slices.Equal(got, []string{"mmdebstrap"}) {
		t.Errorf("got %v", got)
	}
	if got := missing(needs, no, no); len(got) != len(needs) {
		t.Errorf("got %v", got)
	}
}

func TestSameFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	big := bytes.Repeat([]byte("x"), 3<<20)
	other := append(slices.Clone(big), 'y')
	a, b, c := write("a", big), write("b", big), write("c", other)
	for _, tc := range []struct {
		x, y string
		want bool
	}{{a, b, true}, {a, c, false}, {c, a, false}, {a, filepath.Join(dir, "none"), false}} {
		if got, err := sameFile(tc.x, tc.y); err != nil || got != tc.want {
			t.Errorf("sameFile(%s, %s) = %v, %v", tc.x, tc.y, got, err)
		}
	}
}

func TestRefusesAnotherFolder(t *testing.T) {
	err := Run(t.Context(), Options{Dir: t.TempDir(), Out: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "not the root of a Holdfast checkout") {
		t.Errorf("got %v", err)
	}
}
