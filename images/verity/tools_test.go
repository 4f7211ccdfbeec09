// SPDX-License-Identifier: Apache-2.0

//go:build engine

package verity

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/images/internal/foreign"
)

// The bytes and root hash equal those of veritysetup format, and veritysetup
// verify accepts ours.
func TestForeignTreeIsTheSame(t *testing.T) {
	dir := t.TempDir()
	salt := bytes.Repeat([]byte{0x5a}, 32)
	uuid := [16]byte{1, 2, 3, 4, 5, 6, 0x87, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}
	for _, blocks := range []int64{1, 2, 127, 128, 129, 128*128 - 1, 128 * 128, 128*128 + 1, 20000} {
		data := make([]byte, blocks*BlockSize)
		src := rand.NewChaCha8([32]byte{byte(blocks)})
		src.Read(data)
		ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
		for _, p := range []string{ours, theirs} {
			if err := os.WriteFile(p, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.OpenFile(ours, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		size := int64(len(data))
		root, err := Format(t.Context(), f, size, f, size, salt, uuid)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		common := []string{"--hash-offset", fmt.Sprint(size), "--data-blocks", fmt.Sprint(blocks)}
		rootFile := filepath.Join(dir, "root")
		out := foreign.MustRun(t, "veritysetup", append([]string{"format", theirs, theirs, "--salt", hex.EncodeToString(salt),
			"--uuid", "01020304-0506-8708-890a-0b0c0d0e0f10", "--root-hash-file", rootFile}, common...)...)
		want, err := os.ReadFile(rootFile)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(root[:]) != string(bytes.TrimSpace(want)) {
			t.Errorf("%d blocks: root %x, veritysetup: %s\n%s", blocks, root, want, out)
		}
		a, errA := os.ReadFile(ours)
		b, errB := os.ReadFile(theirs)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%d blocks: files differ (%d and %d bytes)", blocks, len(a), len(b))
		}
		if int64(len(a)) != size+HashSize(size) {
			t.Errorf("%d blocks: HashSize says %d, the tree has %d", blocks, HashSize(size), int64(len(a))-size)
		}
		foreign.MustRun(t, "veritysetup", append([]string{"verify", ours, ours, hex.EncodeToString(root[:])}, common[:2]...)...)
	}
}
