// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/qa/upgrade"
)

// Recording is one upgrade as its disk saw it.
type Recording struct {
	// Disk is the qcow2 file that the machine began with, Log every write,
	// flush and discard since (the format of dm-log-writes, 512-byte sectors).
	// A rebuilt disk is Disk with a part of Log on it.
	Disk string `json:"disk"`
	Log  string `json:"log"`
	// Vars is the firmware's variable store at the start.
	Vars string `json:"vars"`
	// Rows are what the box says happened, in order.
	Rows []status.UpgradeResult `json:"rows"`
}

// TestRecordUpgrade records what the disk sees of one upgrade of each kind: of
// the stack alone, of the system, and a rollback by hand. qa/powercut makes
// disks after power cuts from it. HOLDFAST_RECORDING names the folder to keep
// it in.
func TestRecordUpgrade(t *testing.T) {
	dir := os.Getenv("HOLDFAST_RECORDING")
	if dir == "" && !soak {
		t.Skip("left out: only in `make soak`, or with HOLDFAST_RECORDING")
	}
	dir = cmp.Or(dir, filepath.Join(logs, "recording"))
	specs := []upgrade.Spec{upgrade.StackOnly, upgrade.Next}
	u := newUpgrades(t, specs...)
	r := recordUpgrade(t, u, dir, specs...)
	t.Logf("%d upgrades recorded in %s", len(r.Rows), dir)
}

// recordUpgrade upgrades a box to each release in turn and goes back from the
// last by hand, and records the disk.
func recordUpgrade(t *testing.T, u *upgrades, dir string, specs ...upgrade.Spec) Recording {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := u.newBox(t, specs...)
	vars, err := os.ReadFile(b.opts.Vars)
	if err != nil {
		t.Fatal(err)
	}
	r := Recording{Disk: u.disk, Log: filepath.Join(dir, "log"), Vars: filepath.Join(dir, "vars.fd")}
	for name, data := range map[string][]byte{r.Log: nil, r.Vars: vars} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.opts.Record = r.Log
	b.up()
	for i, s := range specs {
		b.begin(s.Version)
		row := b.ended(i + 1)
		b.wantRow(row, "upgrade", "demo "+s.Version, "committed")
		r.Rows = append(r.Rows, row)
	}
	b.behind("holdfast rollback")
	row := b.ended(len(specs) + 1)
	b.wantRow(row, "rollback", row.To, "committed")
	r.Rows = append(r.Rows, row)
	b.off()
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "recording.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return r
}
