// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkFormat is the tree of a root image of usual size, from the page cache.
func BenchmarkFormat(b *testing.B) {
	const size = 217 << 20
	f, err := os.Create(filepath.Join(b.TempDir(), "root"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for i := range int64(217) {
		block[0] = byte(i)
		if _, err := f.WriteAt(block, i<<20); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(size)
	for b.Loop() {
		if _, err := Format(b.Context(), f, size, f, size, make([]byte, 32), [16]byte{1}); err != nil {
			b.Fatal(err)
		}
	}
}
