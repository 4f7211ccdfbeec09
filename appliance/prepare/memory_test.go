// SPDX-License-Identifier: Apache-2.0

//go:build !race

package prepare

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// maxMemory is what the child process may hold at its peak, in bytes.
const maxMemory = 64 << 20

// The child's peak does not grow with the release. (The race detector's own
// memory is not measured: there this file is left out.)
func TestPeakMemory(t *testing.T) {
	big := make1(t, parts{version: "2.0.0", root: squashfs(noise(7, 64<<20)), uki: noise(8, 8<<20)})
	b := newBox(t, nil)
	for _, s := range b.slots {
		ok(t, os.Truncate(s, 66<<20))
	}
	f, err := os.OpenFile(b.slots[0], os.O_RDWR, 0)
	ok(t, err)
	_, err = f.WriteAt(squashfs(noise(9, 60<<20)), 0) // chunks that are of no use
	ok(t, err)
	ok(t, f.Close())
	in, err := json.Marshal(b.request(big))
	ok(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stdin = append(os.Environ(), "HOLDFAST_PREPARE_CHILD=1"), bytes.NewReader(in)
	var status strings.Builder
	cmd.Stderr = &status
	out, err := cmd.Output()
	ok(t, err)
	res, err := Follow(bytes.NewReader(out), nil)
	ok(t, err)
	b.check(big, res)
	var peak int64
	for line := range strings.Lines(status.String()) {
		fmt.Sscanf(line, "VmHWM: %d kB", &peak)
	}
	peak <<= 10
	t.Logf("peak memory %s", mb(peak))
	if peak == 0 || peak > maxMemory {
		t.Errorf("the peak is %s, more than %s", mb(peak), mb(maxMemory))
	}
}
