// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/appliance/supervise"
)

func TestFetch(t *testing.T) {
	w := newWorld(t)
	w.wire.plug("registry.test", w.registry(web, db))
	s := w.source()
	for i, ref := range []string{web, db} {
		if _, err := w.fetch(t.Context(), s, ref); err != nil {
			t.Fatal(err)
		}
		w.check(s, ref)
		if err := s.Loaded(w.digest(ref)); err != nil {
			t.Fatal(err)
		}
		whole, partial := w.stored()
		if len(partial) != 0 || i == 0 && !slices.Contains(whole, w.base.Hex) || i == 0 && slices.Contains(whole, encoded(w.own(web))) {
			t.Errorf("after %s: blobs %v, unverified %v", ref, whole, partial)
		}
	}
	if _, err := os.Stat(w.o.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the store is still there: %v", err)
	}
	if got := w.wire.asked(w.base.String()); len(got) != 1 {
		t.Errorf("the shared layer was asked for %d times: %q", len(got), got)
	}
}

// A box that boots before its network is there waits, says for what, and goes
// on when it is.
func TestRegistryAway(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		s := w.source()
		go func() {
			<-time.After(3 * time.Hour)
			w.wire.plug("registry.test", w.registry(web))
		}()
		w.ok(s.Need([]string{w.digest(web)}))
		began := time.Now()
		got, err := w.fetch(t.Context(), s, web)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > 3*time.Hour+2*time.Minute {
			t.Errorf("was there %s after the registry", d-3*time.Hour)
		}
		waited := slices.ContainsFunc(got, func(f supervise.Fetching) bool {
			return strings.HasPrefix(f.Waiting, web+": registry.test ") && strings.Contains(f.Waiting, "no route")
		})
		texts := map[string]bool{}
		for _, f := range got {
			texts[f.Waiting] = true
		}
		delete(texts, "")
		if !waited || len(texts) != 1 {
			t.Errorf("said %v", texts)
		}
		if n := len(w.wire.log); n > 250 {
			t.Errorf("asked %d times in three hours", n)
		}
	})
}

// A box that loses its power goes on where it stopped: a new Source over the
// same folder asks for no whole blob again.
func TestInterrupted(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		w.wire.plug("registry.test", &faulty{Handler: w.registry(web, db), part: w.own(web), faults: []fault{hang(120_000)}})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-time.After(10 * time.Second); cancel() }()
		s := w.source()
		if _, err := w.fetch(ctx, s, web); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		whole, partial := w.stored()
		if len(partial) != 1 || len(whole) < 3 {
			t.Fatalf("kept %v and %v", whole, partial)
		}
		w.ok(os.WriteFile(filepath.Join(w.o.Dir, unverifiedDir, "rubbish"), nil, 0o600))
		s = w.source()
		if _, err := w.fetch(t.Context(), s, web); err != nil {
			t.Fatal(err)
		}
		w.check(s, web)
		for digest := range w.blobs(web) {
			want := 1
			if digest == w.own(web) {
				want = 2
			}
			if got := w.wire.asked(digest); len(got) != want || want == 2 && !strings.Contains(got[1], "bytes=120000-") {
				t.Errorf("asked %q", got)
			}
		}
		if _, partial := w.stored(); len(partial) > 0 {
			t.Errorf("left behind: %v", partial)
		}
	})
}

// What lies unverified may be anything after a lost power.
func TestUnverifiedIsVerified(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"tail of zeros": func(b []byte) []byte { return append(slices.Clone(b[:1000]), make([]byte, 5000)...) },
		"too long":      func(b []byte) []byte { return append(slices.Clone(b), 'x') },
		"whole":         func(b []byte) []byte { return b },
		"whole, wrong":  func(b []byte) []byte { return make([]byte, len(b)) },
		"empty":         func(b []byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			synctest.Test(t, func(t *testing.T) {
				w.wire.plug("registry.test", w.registry(web, db))
				w.ok((&store{dir: w.o.Dir}).open())
				w.ok(os.WriteFile(filepath.Join(w.o.Dir, unverifiedDir, encoded(w.own(web))), damage(w.blobs(web)[w.own(web)]), 0o600))
				s := w.source()
				if _, err := w.fetch(t.Context(), s, web); err != nil {
					t.Fatal(err)
				}
				w.check(s, web)
				if asked := w.wire.asked(w.own(web)); (name == "whole") != (len(asked) == 0) {
					t.Errorf("asked %q", asked)
				}
			})
		})
	}
}

func TestLayouts(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		damaged, good := w.layout(web), w.layout(web)
		w.ok(os.WriteFile(filepath.Join(damaged, blobDir, encoded(w.own(web))), make([]byte, len(w.blobs(web)[w.own(web)])), 0o644))
		w.ok(os.Remove(filepath.Join(damaged, blobDir, w.base.Hex)))
		w.ok(syscall.Mkfifo(filepath.Join(damaged, blobDir, w.base.Hex), 0o644))
		w.o.Layouts = []string{filepath.Join(damaged, "missing"), damaged, good}
		s := w.source()
		w.ok(s.Need([]string{w.digest(web)}))
		if _, err := w.fetch(t.Context(), s, web); err != nil {
			t.Fatal(err)
		}
		w.check(s, web)
		// What goes bad afterwards shows when the engine reads it, and stands
		// in the way once.
		third := w.layout(web)
		s.store.layouts = append(s.store.layouts, third)
		path := filepath.Join(good, blobDir, encoded(w.own(web)))
		fine, err := os.ReadFile(path)
		w.ok(err)
		w.ok(os.WriteFile(path, make([]byte, len(fine)), 0o644))
		if err := s.WriteImage(t.Context(), discard{}, w.digest(web), nil); !errors.Is(err, supervise.ErrCopyDamaged) {
			t.Fatal(err)
		}
		if _, err := w.fetch(t.Context(), s, web); err != nil {
			t.Fatal(err)
		}
		w.check(s, web)
		w.ok(s.Loaded(w.digest(web)))
		if len(w.wire.log) != 0 {
			t.Errorf("asked the network: %q", w.wire.log)
		}
		// What lies in a layout is its owner's.
		if _, err := os.Stat(filepath.Join(good, blobDir, encoded(w.own(web)))); err != nil {
			t.Error(err)
		}
		// Half of an image is in a layout, half in the registry.
		w.o.Layouts = []string{damaged}
		w.wire.plug("registry.test", w.registry(web))
		s = w.source()
		w.ok(s.Need([]string{w.digest(web)}))
		if _, err := w.fetch(t.Context(), s, web); err != nil {
			t.Fatal(err)
		}
		w.check(s, web)
		if n := len(w.wire.asked(w.own(web))) + len(w.wire.asked(w.base.String())); n != 2 {
			t.Errorf("asked the network %q", w.wire.log)
		}
	})
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// A layout that arrives while the box waits ends the wait.
func TestLayoutArrives(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "images")
		w.o.Layouts = []string{dir}
		from := w.layout(web)
		go func() {
			<-time.After(time.Hour)
			w.ok(os.Rename(from, dir))
		}()
		s := w.source()
		w.ok(s.Need([]string{w.digest(web)}))
		if _, err := w.fetch(t.Context(), s, web); err != nil {
			t.Fatal(err)
		}
		w.check(s, web)
	})
}

// A copy of our own that goes bad between the fetch and the load is fetched
// again, that blob alone.
func TestOwnCopyDamaged(t *testing.T) {
	w := newWorld(t)
	w.wire.plug("registry.test", w.registry(web, db))
	s := w.source()
	if _, err := w.fetch(t.Context(), s, web); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.o.Dir, blobDir, encoded(w.own(web)))
	b, err := os.ReadFile(path)
	w.ok(err)
	b[7] ^= 1
	w.ok(os.WriteFile(path, b, 0o600))
	if err := s.WriteImage(t.Context(), discard{}, w.digest(web), nil); !errors.Is(err, supervise.ErrCopyDamaged) {
		t.Fatal(err)
	}
	if _, err := w.fetch(t.Context(), s, web); err != nil {
		t.Fatal(err)
	}
	w.check(s, web)
	if a, b := len(w.wire.asked(w.own(web))), len(w.wire.asked(w.base.String())); a != 2 || b != 1 {
		t.Errorf("asked for the damaged one %d times, for another %d", a, b)
	}
}

func TestNoRoom(t *testing.T) {
	w := newWorld(t)
	w.wire.plug("registry.test", w.registry(web, db))
	w.o.Free = func(string) (int64, error) { return 2 * layerSize, nil }
	s := w.source()
	_, err := w.fetch(t.Context(), s, web)
	var no *NoRoomError
	if !errors.As(err, &no) || no.Free != 2*layerSize || no.Need < 6*layerSize || !strings.Contains(err.Error(), "the images need at least 2 MB on the state volume, and 600 kB are free") {
		t.Errorf("%v", err)
	}
	if n := len(w.wire.asked("/blobs/")); n != 0 {
		t.Errorf("asked for %d blobs", n)
	}
	if !errors.As(full(&os.PathError{Op: "write", Err: syscall.ENOSPC}), &no) || no.Need != 0 {
		t.Error("a disk that fills up is not named")
	}
}

// All sources have refused, so asking goes on only where one has not.
func TestOneSourceMayYetAnswer(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		w.o.Mirrors = func(r string) []string {
			if r != "registry.test" {
				t.Errorf("asked for the mirrors of %s", r)
			}
			return []string{"http://mirror.test/cache"}
		}
		w.wire.plug("registry.test", http.NotFoundHandler())
		go func() {
			<-time.After(time.Hour)
			w.wire.plug("mirror.test", http.StripPrefix("", rewrite{"/v2/cache/", "/v2/", w.registry(web, db)}))
		}()
		s := w.source()
		if _, err := w.fetch(t.Context(), s, web); err != nil {
			t.Fatal(err)
		}
		w.check(s, web)
		for _, l := range w.wire.log {
			if !strings.HasPrefix(l, "https registry.test/v2/ ") && !strings.Contains(l, " mirror.test/v2/") {
				t.Errorf("asked %s", l)
			}
		}
	})
}

type rewrite struct {
	from, to string
	http.Handler
}

func (r rewrite) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	q.URL.Path = strings.Replace(q.URL.Path, r.from, r.to, 1)
	r.Handler.ServeHTTP(w, q)
}
