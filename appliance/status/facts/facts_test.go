// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree writes files below a new root; "-> x" makes a symbolic link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReadOrdinaryHost(t *testing.T) {
	root := tree(t, map[string]string{
		"proc/sys/kernel/random/boot_id": "b-1\n", "etc/machine-id": "m-1\n", "proc/cmdline": "quiet\n",
		"proc/self/mountinfo": "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n",
		"usr/lib/os-release":  "ID=debian\nIMAGE_VERSION=\"13-abc\"\n",
	})
	f, err := Read(root)
	if err != nil || f.BootID != "b-1" || f.MachineID != "m-1" || f.OS != "13-abc" || f.Slot != "" || f.Root.ReadOnly || f.Sealed {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestRootThatCannotBeShown(t *testing.T) {
	root := tree(t, map[string]string{
		"proc/cmdline":        "roothash=" + strings.Repeat("a", 64) + "\n",
		"proc/self/mountinfo": "22 1 8:1 / / ro,relatime shared:1 - squashfs /dev/sda1 ro\n",
	})
	f, err := Read(root)
	if err == nil || f.Root.Verified || !f.Root.ReadOnly || !f.Sealed {
		t.Errorf("%+v, %v", f, err)
	}
}

const hash = "fb1a5a0f00deb908d8b53cb270858975e76cf64105d412ce764225d53b8f3cfd"

func TestParseVerity(t *testing.T) {
	root := tree(t, map[string]string{"sys/dev/block/254:2": "-> ../../devices/virtio1/block/vda/vda2"})
	table := []Target{{Type: "verity", Params: "1 254:2 254:2 4096 4096 1000 1001 sha256 " + hash + " 1234"}}
	v, err := parseVerity(root, table, []Target{{Type: "verity", Params: "V"}})
	want := Verity{Device: "vda2", Hash: hash, HashStart: 1001 * 4096, DataBytes: 1000 * 4096, OK: true}
	if err != nil || v != want {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := parseVerity(root, table, []Target{{Type: "verity", Params: "C"}}); err != nil || v.OK {
		t.Errorf("a corrupted device: %+v, %v", v, err)
	}
	for name, params := range map[string]string{
		"short": "1 254:2 254:2 4096", "two devices": "1 254:2 254:3 4096 4096 1000 1001 sha256 " + hash + " -",
		"no number": "1 254:2 254:2 4096 4096 x 1001 sha256 " + hash + " -",
	} {
		if _, err := parseVerity(root, []Target{{Type: "verity", Params: params}}, []Target{{Params: "V"}}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := parseVerity(root, []Target{{Type: "linear"}}, []Target{{}}); err == nil {
		t.Error("a linear target passed for verity")
	}
}

// spec is one struct dm_target_spec with its text.
func spec(next uint32, kind, text string) []byte {
	b := make([]byte, 40)
	binary.NativeEndian.PutUint64(b[8:], 77)
	binary.NativeEndian.PutUint32(b[20:], next)
	copy(b[24:], kind)
	b = append(b, text...)
	return append(b, make([]byte, 8-len(b)%8)...)
}

func TestParseTargets(t *testing.T) {
	one := spec(0, "verity", "V")
	got, err := parseTargets(one, 1)
	if err != nil || len(got) != 1 || got[0] != (Target{Length: 77, Type: "verity", Params: "V"}) {
		t.Errorf("%+v, %v", got, err)
	}
	first := spec(0, "linear", "8:1 0")
	first = spec(uint32(len(first)), "linear", "8:1 0")
	got, err = parseTargets(append(first, one...), 2)
	if err != nil || len(got) != 2 || got[1].Type != "verity" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseTargets(one[:20], 1); err == nil {
		t.Error("a cut answer was taken")
	}
}

func FuzzParseTargets(f *testing.F) {
	f.Add(spec(0, "verity", "V"), 1)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		got, err := parseTargets(b, n%16)
		if err == nil && n%16 > 0 && len(got) != n%16 {
			t.Errorf("%d targets, want %d", len(got), n%16)
		}
		for _, x := range got {
			if bytes.ContainsRune([]byte(x.Params), 0) {
				t.Error("text with a NUL")
			}
		}
	})
}

func TestUptime(t *testing.T) {
	a := Uptime()
	if b := Uptime(); a <= 0 || b < a {
		t.Errorf("uptime %g then %g", a, b)
	}
}
