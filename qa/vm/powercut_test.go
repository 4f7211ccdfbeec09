// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import "testing"

// TestPowerCut ends QEMU at once in the middle of the first boot; the next
// boot must get to healthy by itself. What QEMU was told to flush is on the
// disk, the rest may be.
func TestPowerCut(t *testing.T) {
	for _, row := range []struct {
		name string
		at   string // what the console says when the power goes
		soak bool
	}{
		{name: "while storage is made", at: `Starting .*holdfast-storage`, soak: true},
		{name: "storage is made", at: `Finished .*holdfast-storage`, soak: true},
		{name: "data is made", at: `Finished .*holdfast-data`, soak: true},
		{name: "while images load", at: `holdfast: .*load`},
		{name: "while the stack starts", at: `holdfast: .*start`, soak: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.soak && !soak {
				t.Skip("left out: only in `make soak`")
			}
			b := newBox(t, "")
			b.start()
			b.said(0, row.at)
			b.Kill()
			b.start()
			b.complete(0, 1)
			checkHealthy(b)
			b.off()
		})
	}
}
