// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Each row breaks the first answers about one blob; the image comes all the
// same, and asked says by which requests.
func TestFaultsThatPass(t *testing.T) {
	for _, row := range []struct {
		name   string
		faults []fault
		wrap   func(http.Handler) http.Handler
		asked  []string
	}{
		{"connection broken", []fault{breakAfter(100_000)}, nil, []string{"", "bytes=100000"}},
		{"broken three times", []fault{breakAfter(50_000), breakAfter(50_000), breakAfter(50_000)}, nil, []string{"", "bytes=50000", "bytes=100000", "bytes=150000"}},
		{"broken, and no ranges", []fault{breakAfter(100_000)}, noRanges, []string{"", "bytes=100000"}},
		{"no longer in range", []fault{breakAfter(100_000), status(416)}, nil, []string{"", "bytes=100000", ""}},
		{"503 and 500", []fault{status(503), status(500)}, nil, []string{"", "", ""}},
		{"429 with a wish", []fault{status(429, "Retry-After", "300")}, nil, []string{"", ""}},
		{"408, 425", []fault{status(408), status(425)}, nil, []string{"", "", ""}},
		{"hang before the first byte", []fault{hang(0)}, nil, []string{"", ""}},
		{"hang in the middle", []fault{hang(70_000)}, nil, []string{"", "bytes=70000"}},
		{"ended early without a length", []fault{body([]byte("short"), -1), status(416)}, nil, []string{"", "bytes=5", ""}},
		{"garbage, then the rest", []fault{body([]byte("short"), -1)}, nil, []string{"", "bytes=5", ""}},
		{"another range", []fault{breakAfter(1000), status(206, "Content-Range", "bytes 2000-299999/*")}, nil, []string{"", "bytes=1000", "bytes=1000"}},
		{"no range told", []fault{breakAfter(1000), status(206)}, nil, []string{"", "bytes=1000", "bytes=1000"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			synctest.Test(t, func(t *testing.T) {
				h := w.registry(web)
				if row.wrap != nil {
					h = row.wrap(h)
				}
				w.wire.plug("registry.test", &faulty{Handler: h, part: w.own(web), faults: row.faults})
				s := w.source()
				w.ok(s.Need([]string{w.digest(web)}))
				began := time.Now()
				if _, err := w.fetch(t.Context(), s, web); err != nil {
					t.Fatal(err)
				}
				w.check(s, web)
				var spans []string
				for _, l := range w.wire.asked(w.own(web)) {
					_, span, _ := strings.Cut(l, w.own(web)+" ")
					first, _, _ := strings.Cut(span, "-")
					spans = append(spans, first)
				}
				if !slices.Equal(spans, row.asked) {
					t.Errorf("asked for %q, want %q", spans, row.asked)
				}
				if strings.HasPrefix(row.name, "429") && time.Since(began) < 5*time.Minute {
					t.Errorf("asked again after %s", time.Since(began))
				}
				if _, partial := w.stored(); len(partial) != 0 {
					t.Errorf("left behind: %v", partial)
				}
			})
		})
	}
}

// Each row is an answer that no waiting mends: one error, and nothing kept of
// the blob.
func TestFaultsThatStay(t *testing.T) {
	long := make([]byte, 2*layerSize)
	for _, row := range []struct {
		name  string
		fault fault
		of    func(w *world) string // the blob; the own layer where nil
		want  string
	}{
		{"longer by its length", body(long, len(long)), nil, "bytes where"},
		{"shorter by its length", body(long[:10], 10), nil, "with 10 bytes where"},
		{"longer than signed", body(long, -1), nil, "has more than the"},
		{"404", status(404), nil, "registry.test answered 404 Not Found"},
		{"403", status(403), nil, "registry.test answered 403 Forbidden"},
		{"401", status(401), nil, "registry.test answered 401 Unauthorized"},
		{"manifest 404", status(404), func(w *world) string { return w.digest(web) }, "answered 404"},
		{"manifest of another", body([]byte(`{"layers":[]}`), 13), func(w *world) string { return w.digest(web) }, "with 13 bytes where"},
		{"manifest without end", body(make([]byte, 1<<20), -1), func(w *world) string { return w.digest(web) }, "has more than the"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			synctest.Test(t, func(t *testing.T) {
				blob := w.own(web)
				if row.of != nil {
					blob = row.of(w)
				}
				w.wire.plug("registry.test", &faulty{Handler: w.registry(web, db), part: blob, faults: several(1000, row.fault)})
				s := w.source()
				_, err := w.fetch(t.Context(), s, web)
				var refused *RefusedError
				if !errors.As(err, &refused) || !strings.Contains(err.Error(), row.want) || !strings.HasPrefix(err.Error(), web+" cannot be had: registry.test ") || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want %q", err, row.want)
				}
				whole, partial := w.stored()
				if slices.Contains(whole, encoded(blob)) || slices.Contains(partial, encoded(blob)) {
					t.Errorf("kept of what is wrong: %v %v", whole, partial)
				}
			})
		})
	}
}

func TestWrongBytes(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		blob := w.blobs(web)[w.own(web)]
		evil := slices.Clone(blob)
		evil[len(evil)/2] ^= 1
		bad := &faulty{Handler: w.registry(web, db), part: w.own(web), faults: several(1000, body(evil, len(evil)))}
		w.wire.plug("registry.test", bad)
		s := w.source()
		_, err := w.fetch(t.Context(), s, web)
		if want := "registry.test has other bytes under the name " + w.own(web); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		whole, partial := w.stored()
		if slices.Contains(whole, encoded(w.own(web))) || slices.Contains(partial, encoded(w.own(web))) {
			t.Errorf("kept of what is wrong: %v %v", whole, partial)
		}
		// A mirror that has it right is all it takes.
		w.wire.plug("mirror.test", w.registry(web, db))
		w.o.Mirrors = func(string) []string { return []string{"https://registry-cache.test", "https://mirror.test"} }
		s = w.source()
		if _, err := w.fetch(t.Context(), s, web); err != nil {
			t.Fatal(err)
		}
		w.check(s, web)
		// A bad mirror does not stand in the way of the registry.
		w.wire.plug("mirror.test", bad)
		w.wire.plug("registry.test", w.registry(web, db))
		w.ok(os.RemoveAll(w.o.Dir))
		s = w.source()
		if _, err := w.fetch(t.Context(), s, web); err != nil {
			t.Fatal(err)
		}
		w.check(s, web)
	})
}
