// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/status"
)

// dataBox is a root whose data file says d.
func dataBox(t *testing.T, d status.DataDisk) string {
	t.Helper()
	root := t.TempDir()
	data, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(root, firstboot.DataFile)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

func runData(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = Execute(context.Background(), IO{Out: &o, Err: &e}, append([]string{"data"}, args...))
	return code, o.String(), e.String()
}

func onDisk() status.DataDisk {
	return status.DataDisk{
		Place: "data-disk", Group: "holdfast-data", Volume: "data-3", Mapper: "holdfast--data-data--3", Device: "/dev/vdb",
		Disk:  &status.DiskID{Device: "/dev/vdb", ID: "/dev/disk/by-id/virtio-vol1", Serial: "vol1", Bytes: 20 << 30},
		Label: &status.DataLabel{Box: strings.Repeat("ab", 16), Release: "demo", Version: "1.0.0", ReadableFrom: "1.0.0", Generation: 6},
		Others: []status.OtherDisk{
			{DiskID: status.DiskID{Device: "/dev/vdc", Serial: "backup", Bytes: 4 << 30}, Holds: "ext4"},
			{DiskID: status.DiskID{Device: "/dev/vdd", Bytes: 512 << 20}, Unfit: "it is removable"},
		},
		Conditions: []status.Condition{{Code: "data-disk-unused", Severity: "info", Text: "disk /dev/vdc holds ext4 and is not touched", Remedy: "detach the disk"}},
	}
}

func TestData(t *testing.T) {
	root := dataBox(t, onDisk())
	code, out, errs := runData("--root", root)
	want := `data           on a data disk
disk           /dev/vdb, 20 GiB
known as       /dev/disk/by-id/virtio-vol1
model, serial  -, vol1
volume         holdfast-data/data-3
label          box abababababababababababababababab, demo 1.0.0, readable from 1.0.0, generation 6

OTHER DISK  SIZE      SERIAL  HOLDS                                       KNOWN AS
/dev/vdc    4096 MiB  backup  ext4                                        -
/dev/vdd    512 MiB   -       nothing (no home for data: it is removable)  -

info: disk /dev/vdc holds ext4 and is not touched (data-disk-unused)
  to do: detach the disk
`
	if code != ExitOK || strings.Join(strings.Fields(out), " ") != strings.Join(strings.Fields(want), " ") || errs != "" {
		t.Errorf("code %d, %q\n%s", code, errs, out)
	}
	code, out, _ = runData("--json", "--root", root)
	var d status.DataDisk
	if err := json.Unmarshal([]byte(out), &d); code != ExitOK || err != nil || d.Disk.Serial != "vol1" {
		t.Errorf("code %d, %v\n%s", code, err, out)
	}
}

func TestDataHeld(t *testing.T) {
	root := dataBox(t, status.DataDisk{Held: &status.Condition{Code: "data-foreign", Severity: "critical", Text: "another box's", Remedy: "run holdfast data adopt"}})
	code, out, _ := runData("--root", root)
	if code != ExitOK || !strings.HasPrefix(out, "data  not in use\n") || !strings.Contains(out, "critical: another box's (data-foreign)\n  to do: run holdfast data adopt\n") {
		t.Errorf("code %d\n%s", code, out)
	}
}

func TestDataErrors(t *testing.T) {
	for _, c := range []struct {
		name, want string
		code       int
		args       []string
	}{
		{"has not run", "systemctl status holdfast-data", ExitFailed, []string{"--root", t.TempDir()}},
		{"adopt before it has run", "systemctl status holdfast-data", ExitFailed, []string{"adopt", "--root", t.TempDir()}},
		{"nothing to adopt", "nothing is to be adopted: the data of this box is in use on the data-disk", ExitFailed, []string{"adopt", "--root", dataBox(t, onDisk())}},
		{"a word too much", "unknown command", ExitUsage, []string{"give"}},
		{"adopt what", "unknown command", ExitUsage, []string{"adopt", "/dev/vdb"}},
	} {
		if code, out, errs := runData(c.args...); code != c.code || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%s: code %d, %q, %q", c.name, code, out, errs)
		}
	}
}

// TestDataWish: what the configuration says, and that a refused document is
// no word at all.
func TestDataWish(t *testing.T) {
	root := t.TempDir()
	if w := dataWish(root); w.Refused == "" {
		t.Errorf("no configuration: %+v", w)
	}
	e := config.Effective{Config: config.Default()}
	e.Config.Data = config.Data{Disk: "none", Adopt: true}
	if err := e.Save(root); err != nil {
		t.Fatal(err)
	}
	if w := dataWish(root); w != (firstboot.Wish{Disk: "none", Adopt: true}) {
		t.Errorf("%+v", w)
	}
	e.Sources = []config.SourceState{{Source: config.FromEC2, Where: "user-data", State: config.Refused}}
	if err := e.Save(root); err != nil {
		t.Fatal(err)
	}
	if w := dataWish(root); w.Refused != "user-data" {
		t.Errorf("%+v", w)
	}
}
