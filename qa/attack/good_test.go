// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/release"
)

// The way that all attacks are tried on works for the vendor's own bytes, from
// a folder and from a bundle.
func TestGood(t *testing.T) {
	t.Parallel()
	v := newVendor(t)
	digest := v.publish(t, "1.1.0", 1)
	pack := filepath.Join(t.TempDir(), "demo.bundle")
	write(t, pack, v.bundle(t))
	for _, ref := range []string{v.depot, pack} {
		b := newBox(t, v)
		if err := b.take(t.Context(), ref, "1.1.0"); err != nil {
			t.Fatal(err)
		}
		slot, err := os.ReadFile(filepath.Join(b.dir, "slot-b"))
		if err != nil || !bytes.Equal(slot[:rootSize], root(1)) {
			t.Errorf("slot B does not hold the root: %v", err)
		}
		folder := filepath.Join(b.dir, "state/releases", strings.TrimPrefix(digest, "sha256:"))
		if _, err := release.OpenInstalled(os.DirFS(folder), digest); err != nil {
			t.Error(err)
		}
	}
}
