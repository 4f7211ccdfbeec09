// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

func TestRecordKeepsTheNewest(t *testing.T) {
	r := Record{Path: filepath.Join(t.TempDir(), "r"), Max: 100}
	if _, err := r.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("nothing saved: %v", err)
	}
	for i := range 9 {
		// Shorter and longer in turn: what is left of a longer one is no part.
		text := bytes.Repeat([]byte{byte('a' + i)}, 50-i%3*20)
		if err := r.Save(text, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := r.Load(); err != nil || !bytes.Equal(got, text) {
			t.Fatalf("save %d: %q, %v", i, got, err)
		}
	}
	for _, name := range []string{r.name(0), r.name(1)} {
		if st, err := os.Stat(name); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if err := r.Save(make([]byte, 101), 0o600); err == nil {
		t.Error("more than Max was saved")
	}
	if err := r.Save(nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Load(); err != nil || len(got) != 0 {
		t.Errorf("empty content: %q, %v", got, err)
	}
}

// torn is what a cut leaves of a write over old: the first n bytes of the new,
// and behind them the old ones, or nothing, or noise.
func torn(old, new []byte, n int, behind string) []byte {
	out := slices.Clone(new[:n])
	switch behind {
	case "old":
		if n < len(old) {
			out = append(out, old[n:]...)
		}
	case "zeros":
		out = append(out, make([]byte, len(new)-n)...)
	}
	return out
}

// TestRecordCuts cuts a write at each of its bytes. The content is the old one
// or, from the last byte on, the new one; and the next write mends the copy.
func TestRecordCuts(t *testing.T) {
	old, before, next := []byte("old"), []byte("before that"), []byte("new")
	for saves := range 3 {
		for _, behind := range []string{"old", "nothing", "zeros"}[:1+saves/2*2] {
			whole := false
			for n := 0; !whole; n++ {
				if behind != "old" && saves == 2 && n%8 != 0 {
					continue // each of these costs a few syncs
				}
				r := Record{Path: filepath.Join(t.TempDir(), "r"), Max: 100}
				want := []byte(nil)
				for i := range saves {
					if want = old; i == 0 && saves == 2 {
						want = before
					}
					if err := r.Save(want, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				copies, err := r.read()
				if err != nil {
					t.Fatal(err)
				}
				at, seq := 0, uint64(1)
				if i, err := r.newest(copies); err == nil {
					at, seq = 1-i, copies[i].seq+1
				}
				was, _ := os.ReadFile(r.name(at)) // none is empty
				data := encodeCopy(seq, next)
				if whole = n >= len(data); whole {
					n = len(data)
					want = next
				}
				if err := os.WriteFile(r.name(at), torn(was, data, n, behind), 0o644); err != nil {
					t.Fatal(err)
				}
				got, err := r.Load()
				switch {
				case whole || saves > 0:
					// With the last byte missing a zero or an old one may by
					// chance be that byte.
					if err != nil || !bytes.Equal(got, want) && !(n == len(data)-1 && bytes.Equal(got, next)) {
						t.Fatalf("%d saves, cut at %d of %d, %s behind: %q, %v", saves, n, len(data), behind, got, err)
					}
				case !errors.Is(err, fs.ErrNotExist) && !(n == len(data)-1 && bytes.Equal(got, next)):
					t.Fatalf("the very first write, cut at %d: %q, %v", n, got, err)
				}
				if err := r.Save([]byte("after"), 0o644); err != nil {
					t.Fatal(err)
				}
				if got, err := r.Load(); err != nil || string(got) != "after" {
					t.Fatalf("after a cut at %d: %q, %v", n, got, err)
				}
			}
		}
	}
}

func TestRecordDamaged(t *testing.T) {
	r := Record{Path: filepath.Join(t.TempDir(), "r"), Max: 100}
	for range 2 {
		if err := r.Save([]byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(i int) {
		b, err := os.ReadFile(r.name(i))
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-1] ^= 1
		if err := os.WriteFile(r.name(i), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	flip(0)
	if got, err := r.Load(); err != nil || string(got) != "x" {
		t.Errorf("one copy is damaged: %q, %v", got, err)
	}
	flip(1)
	if _, err := r.Load(); !errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("both are: %v", err)
	}
	if err := os.Remove(r.name(0)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Load(); !errors.Is(err, ErrDamaged) {
		t.Errorf("one is damaged, one is gone: %v", err)
	}
	if err := r.Save([]byte("y"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Load(); err != nil || string(got) != "y" {
		t.Errorf("written over: %q, %v", got, err)
	}
}

// TestRecordLock: of many that count up under the lock none is lost, and a
// reader never sees anything but a whole content.
func TestRecordLock(t *testing.T) {
	r := Record{Path: filepath.Join(t.TempDir(), "r"), Max: 100}
	if err := r.Save([]byte("0"), 0o644); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				unlock, err := r.Lock()
				if err != nil {
					t.Error(err)
					return
				}
				b, err := r.Load()
				n := 0
				if _, serr := fmt.Sscan(string(b), &n); err != nil || serr != nil {
					t.Errorf("%q, %v, %v", b, err, serr)
				}
				if err := r.Save(fmt.Append(nil, n+1), 0o644); err != nil {
					t.Error(err)
				}
				unlock()
			}
		})
	}
	for range 50 {
		if _, err := r.Load(); err != nil {
			t.Errorf("reading meanwhile: %v", err)
		}
	}
	wg.Wait()
	if b, err := r.Load(); err != nil || string(b) != "20" {
		t.Errorf("%q, %v", b, err)
	}
}

// FuzzRecord: whatever lies in a copy, what is taken was written by encodeCopy.
func FuzzRecord(f *testing.F) {
	f.Add(encodeCopy(7, []byte("content")))
	f.Add([]byte(recordMagic + " 1 0 \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		seq, content, err := decodeCopy(data, 1000)
		if err == nil && !bytes.HasPrefix(data, encodeCopy(seq, content)) {
			t.Errorf("%q gives %d %q", data, seq, content)
		}
	})
}
