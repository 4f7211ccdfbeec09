// SPDX-License-Identifier: Apache-2.0

//go:build vm

package marketplace

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/images/marketplace"
	"github.com/holdfast/holdfast/qa/vm"
)

// TestImage: no shop has a reason to reject the image that was baked last, or
// the one that HOLDFAST_IMAGE names.
func TestImage(t *testing.T) {
	dir := os.Getenv("HOLDFAST_IMAGE")
	if dir == "" {
		im, err := vm.Newest("../../dist")
		if err != nil {
			t.Fatal(err)
		}
		dir = im.Dir
	}
	program := filepath.Join(t.TempDir(), "holdfast-release")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../builder/cmd/holdfast-release").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), program, "check-marketplace", "--json", dir)
	cmd.Stderr = os.Stderr
	// It fails when a row is refused; the rows say more.
	out, runErr := cmd.Output()
	var rep marketplace.Report
	if err := json.Unmarshal(out, &rep); err != nil {
		t.Fatalf("%v, %v", runErr, err)
	}
	if len(rep.Rows) < 20 {
		t.Errorf("%d rows", len(rep.Rows))
	}
	for _, r := range rep.Rows {
		t.Logf("%-18s %-8s %s", r.Check, r.Result, r.LookedAt)
		if r.Result == marketplace.Refused {
			t.Errorf("%s is refused: %q. %s", r.Check, r.Found, r.Remedy)
		}
	}
	if (runErr == nil) != (rep.Refused == 0) {
		t.Errorf("%d are refused, and the command says %v", rep.Refused, runErr)
	}
}
