//go:build vm

package vm

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
)

// TestZZD is engineer D's by-hand test; removed at the end.
func TestZZD(t *testing.T) {
	b := newBox(t, "")
	b.start()
	b.complete(0, 1)
	play := func(name string) {
		script, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, cmd := range strings.Split(string(script), "\n---\n") {
			out, code, err := b.Machine.Shell.Run(b.ctx, cmd)
			t.Logf("$ %s\n[%d, %v]\n%s", cmd, code, err, out)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	play("/work/tmp/D/s1.txt")
	dir := t.TempDir()
	rec := slot.First(slot.Root{Letter: "B", Hash: strings.Repeat("cd", 32)})
	rec.Trial = &slot.Trial{Kind: slot.Upgrade, Origin: "data-1", Reboot: true, Deadline: 900, Window: 10, ArmedBoot: "x",
		Generation: slot.Generation{Number: 2, Slot: "A", RootHash: image.Manifest.RootHash, Data: "data-2"}}
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(slot.Path)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := slot.Save(dir, rec); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, slot.Path+".1"))
	if err != nil {
		t.Fatal(err)
	}
	b.run("systemctl stop holdfast; echo " + base64.StdEncoding.EncodeToString(text) + " | base64 -d > /" + slot.Path + ".1; rm -f /" + slot.Path + ".2; sync; cat /" + slot.Path + ".*")
	b.Machine.Shell.Run(b.ctx, "systemctl reboot")
	if _, err := b.Machine.Shell.Ready(b.within(bootTime, "the second boot"), 2); err != nil {
		t.Fatal(err)
	}
	play("/work/tmp/D/s2.txt")
}
