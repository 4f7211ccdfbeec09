// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// only fails unless dir holds just the named file with content and mode.
func only(t *testing.T, dir, name, content string, mode fs.FileMode) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != name {
		t.Fatalf("folder holds %v, want only %s", entries, name)
	}
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err != nil || string(b) != content {
		t.Errorf("content %q, %v, want %q", b, err, content)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != mode {
		t.Errorf("mode %v, %v, want %v", st.Mode(), err, mode)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, c := range []struct {
		content string
		mode    fs.FileMode
	}{{"one", 0o600}, {"", 0o644}, {"two", 0o755}} {
		if err := WriteFile(path, []byte(c.content), c.mode); err != nil {
			t.Fatal(err)
		}
		only(t, dir, "f", c.content, c.mode)
	}
}

// When anything fails the old file stays, and nothing half-made beside it.
func TestWriteLeavesOld(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("source broke")
	err := Write(path, 0o644, func(w io.Writer) error {
		io.WriteString(w, "half")
		return failed
	})
	if !errors.Is(err, failed) {
		t.Errorf("error %v, want %v", err, failed)
	}
	only(t, dir, "f", "old", 0o644)
}

// The file is never readable by more people than its mode says, and never half
// there under its name.
func TestWriteIsUnseenUntilWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	err := Write(path, 0o600, func(w io.Writer) error {
		io.WriteString(w, "half")
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the name is there before the content: %v", err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if st, err := e.Info(); err != nil || st.Mode().Perm()&0o077 != 0 || !strings.HasPrefix(e.Name(), ".") {
				t.Errorf("%s has mode %v, %v", e.Name(), st.Mode(), err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	only(t, dir, "secret", "half", 0o600)
}

func TestMissingFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "f")
	for name, err := range map[string]error{
		"WriteFile": WriteFile(path, nil, 0o644), "WriteNew": WriteNew(path, nil, 0o644),
		"SyncDir": SyncDir(filepath.Dir(path)), "Rename": Rename(path, path+"x"),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want not exist", name, err)
		}
	}
}

func TestRenameReplaces(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for path, content := range map[string]string{from: "new", to: "old"} {
		if err := WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Rename(from, to); err != nil {
		t.Fatal(err)
	}
	only(t, dir, "to", "new", 0o644)
}

// Of many that make the same file exactly one wins, and its bytes stay.
func TestWriteNewHasOneWinner(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	var wg sync.WaitGroup
	var won atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			switch err := WriteNew(path, []byte{'0' + byte(i)}, 0o600); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, fs.ErrExist):
				t.Errorf("loser: %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d winners", won.Load())
	}
	b, err := os.ReadFile(path)
	if err != nil || len(b) != 1 {
		t.Fatalf("%q, %v", b, err)
	}
	only(t, dir, "key", string(b), 0o600)
}
