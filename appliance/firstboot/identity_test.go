// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

const idA, idB = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"

// idBox is a root whose PID 1 made an id: one file under two names, as the
// bind mount has it.
func idBox(t *testing.T, running string) string {
	t.Helper()
	root := t.TempDir()
	slottest.Put(t, root, runtimeID, running+"\n")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(root, runtimeID), filepath.Join(root, etcID)); err != nil {
		t.Fatal(err)
	}
	return root
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestIdentity(t *testing.T) {
	for _, c := range []struct{ name, running, kept, want, ran string }{
		{"first boot keeps", idA, "", idA, ""},
		{"same id", idA, idA, idA, ""},
		{"other id gives way", idB, idA, idA, "systemctl daemon-reexec\nsystemctl restart systemd-journald.service"},
	} {
		root, run := idBox(t, c.running), &recorder{}
		if c.kept != "" {
			slottest.Put(t, root, keptID, c.kept+"\n")
		}
		if err := Identity(context.Background(), Env{Root: root, Run: run}); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if etc, kept := read(t, root, etcID), read(t, root, keptID); etc != c.want+"\n" || kept != c.want+"\n" {
			t.Errorf("%s: /etc %q, kept %q, want %s", c.name, etc, kept, c.want)
		}
		if got := strings.Join(run.ran, "\n"); got != c.ran {
			t.Errorf("%s: ran %q, want %q", c.name, got, c.ran)
		}
	}
}

func TestIdentityNeverInvents(t *testing.T) {
	for _, bad := range []string{"", "uninitialized", strings.Repeat("0", 32), strings.ToUpper(idA), idA + idA} {
		root, run := idBox(t, idB), &recorder{}
		slottest.Put(t, root, keptID, bad+"\n")
		err := Identity(context.Background(), Env{Root: root, Run: run})
		if err == nil || !strings.Contains(err.Error(), "not a machine id") {
			t.Errorf("%q: %v", bad, err)
		}
		if got := read(t, root, keptID); got != bad+"\n" || len(run.ran) > 0 {
			t.Errorf("%q was replaced by %q, ran %v", bad, got, run.ran)
		}
	}
}
