// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Servers that are cut off, never end, are slow, or lie: the box gives up
// within the time it is given, says which, and is as before.
func TestServers(t *testing.T) {
	v := newVendor(t)
	digest := v.publish(t, "1.1.0", 1)
	honest := http.FileServer(http.Dir(v.depot))
	blob := func(q *http.Request) bool { return strings.Contains(q.URL.Path, "/blobs/") }
	meta := func(q *http.Request) bool { return strings.HasSuffix(q.URL.Path, "timestamp.json") }
	endless := func(w http.ResponseWriter, q *http.Request) {
		piece := bytes.Repeat([]byte("{"), 64<<10)
		for q.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}
	drip := func(w http.ResponseWriter, q *http.Request) {
		w.WriteHeader(http.StatusOK)
		for q.Context().Err() == nil {
			if _, err := w.Write([]byte("{")); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-q.Context().Done():
			case <-time.After(20 * time.Millisecond): // how slow it is, nothing waits for it
			}
		}
	}
	short := func(w http.ResponseWriter, q *http.Request) {
		data, err := os.ReadFile(filepath.Join(v.depot, filepath.Clean(q.URL.Path)))
		if err != nil {
			http.NotFound(w, q)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:len(data)/2]) // and the connection is closed
	}
	zeros := func(w http.ResponseWriter, q *http.Request) {
		data, err := os.ReadFile(filepath.Join(v.depot, filepath.Clean(q.URL.Path)))
		if err != nil {
			http.NotFound(w, q)
			return
		}
		http.ServeContent(w, q, "", start, bytes.NewReader(make([]byte, len(data))))
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, "<html>nothing here</html>")
		}
	}
	elsewhere := func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, q.URL.Path+"?again", http.StatusFound)
	}
	file := func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, "file:///etc/passwd", http.StatusFound)
	}
	// It says that it gives what was asked for and gives another part.
	shifted := func(w http.ResponseWriter, q *http.Request) {
		r := q.Header.Get("Range")
		if r == "" {
			honest.ServeHTTP(w, q)
			return
		}
		q2 := q.Clone(q.Context())
		q2.Header.Set("Range", "bytes=0-"+strings.SplitN(r, "-", 2)[1])
		honest.ServeHTTP(w, q2)
	}
	for _, row := range []struct {
		name  string
		where func(*http.Request) bool
		how   http.HandlerFunc
		meta  bool
	}{
		{"metadata without end", meta, endless, true},
		{"metadata cut off", meta, short, true},
		{"metadata of zeros", meta, zeros, true},
		{"no metadata", meta, status(404), true},
		{"metadata that redirects for ever", meta, elsewhere, true},
		{"metadata that redirects to a file", meta, file, true},
		{"a page in place of metadata", meta, status(200), true},
		{"blobs without end", blob, endless, false},
		{"blobs that drip", blob, drip, false},
		{"blobs cut off", blob, short, false},
		{"blobs of zeros", blob, zeros, false},
		{"no blobs", blob, status(404), false},
		{"blobs that fail", blob, status(500), false},
		{"blobs forbidden", blob, status(403), false},
		{"blobs that redirect for ever", blob, elsewhere, false},
		{"pages in place of blobs", blob, status(200), false},
		{"other parts of blobs", func(q *http.Request) bool { return blob(q) && !strings.Contains(q.URL.Path, digest[7:]) }, shifted, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if row.where(q) {
					row.how(w, q)
					return
				}
				honest.ServeHTTP(w, q)
			}))
			t.Cleanup(s.Close)
			b := newBox(t, v)
			if row.name == "other parts of blobs" {
				// Whatever it does with ranges, the box ends up with the
				// vendor's bytes or with a refusal.
				before := files(t, b.dir)
				if err := b.take(t.Context(), s.URL, "1.1.0"); err != nil {
					sentence(t, row.name, err)
					b.unchanged(t, before, false)
				} else if slot, err := os.ReadFile(filepath.Join(b.dir, "slot-b")); err != nil || !bytes.Equal(slot[:rootSize], root(1)) {
					t.Errorf("slot B is not the vendor's: %v", err)
				}
				return
			}
			b.refused(t, row.name, s.URL, "1.1.0", row.meta)
		})
	}
}
