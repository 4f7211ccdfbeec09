// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/images/durable"
)

func (w *work) blob(digest string) string { return filepath.Join(w.Cache, "blobs", digest) }

// cached is the record of a layer that was made before, or nil. A record that
// cannot be read, or whose blob is not whole, counts as none.
func (w *work) cached(key string) *record {
	b, err := os.ReadFile(filepath.Join(w.Cache, "layers", key+".json"))
	if err != nil {
		return nil
	}
	rec := &record{}
	if json.Unmarshal(b, rec) != nil || len(rec.Digest) != 2*sha256.Size || len(rec.DiffID) != 2*sha256.Size {
		return nil
	}
	if got, err := hashFile(w.blob(rec.Digest)); err != nil || got != rec.Digest {
		return nil
	}
	return rec
}

func (w *work) remember(key string, rec *record) error {
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(w.Cache, "layers", key+".json"), append(b, '\n'), 0o644)
}

// lockFolder takes the folder for this process until unlock; the kernel lets
// go of it when the process dies.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another build of images uses the cache %s: wait for it to end, or give this one a cache of its own", dir)
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}

// readBounded reads all of r, at most limit bytes.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return b, err
}

func hashFile(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func sizeOf(file string) int64 {
	st, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return st.Size()
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
