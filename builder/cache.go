// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/images/durable"
)

// CacheDir is the folder for slow work: HOLDFAST_CACHE, else "holdfast" in the
// user's cache folder.
func CacheDir() (string, error) {
	if d := os.Getenv("HOLDFAST_CACHE"); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder: set HOLDFAST_CACHE (%w)", err)
	}
	return filepath.Join(d, "holdfast"), nil
}

// key names a cached product by everything that went into it. parts are
// joined as JSON, so that no two lists of parts look alike.
func key(parts ...any) string {
	b, err := json.Marshal(parts)
	if err != nil {
		panic(err) // only plain values are ever passed
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:16])
}

// product returns the folder CACHE/kind/key, made by make in a temporary
// folder when it is not there. The folder has its name only when whole and on
// disk; what a killed bake left is cleared by the next one that makes the same
// kind.
func product(ctx context.Context, cache, kind, key string, make func(dir string) error) (dir string, cached bool, err error) {
	top := filepath.Join(cache, kind)
	dir = filepath.Join(top, key)
	if _, err := os.Stat(dir); err == nil {
		return dir, true, nil
	}
	if err := os.MkdirAll(top, 0o755); err != nil {
		return "", false, err
	}
	unlock, err := tools.Lock(filepath.Join(top, ".lock"))
	if err != nil {
		return "", false, err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, true, nil
	}
	if ctx.Err() != nil {
		return "", false, context.Cause(ctx)
	}
	if err := clearLeft(filepath.Join(top, ".making-*")); err != nil {
		return "", false, err
	}
	tmp := filepath.Join(top, ".making-"+key)
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", false, err
	}
	if err := make(tmp); err != nil {
		os.RemoveAll(tmp)
		return "", false, err
	}
	if err := syncTree(tmp); err != nil {
		return "", false, err
	}
	return dir, false, durable.Rename(tmp, dir)
}

func clearLeft(pattern string) error {
	left, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	for _, d := range left {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	return nil
}

// syncTree puts all files and folders below dir on disk.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return durable.SyncDir(p)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
}

// swap puts the finished folder tmp at final, whole: a folder already there is
// exchanged in one step of the kernel and removed afterwards.
func swap(tmp, final string) error {
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return durable.SyncDir(filepath.Dir(final))
	case !errors.Is(err, unix.EEXIST):
		return fmt.Errorf("renaming to %s: %w", final, err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("replacing %s: %w", final, err)
	}
	if err := durable.SyncDir(filepath.Dir(final)); err != nil {
		return err
	}
	return os.RemoveAll(tmp)
}
