// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"debug/elf"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast/holdfast/builder"
)

// TestSpecs: each test release's edits fit the demo that is there, versions
// are distinct, and what is put into the root can be found there.
func TestSpecs(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range append(append([]Spec{}, Quick...), Soak...) {
		if seen[s.Version] {
			t.Errorf("two releases are %s", s.Version)
		}
		seen[s.Version] = true
		dir := filepath.Join(t.TempDir(), s.Version)
		if err := s.stack("../../compose/stacks/demo", dir); err != nil {
			t.Error(err)
			continue
		}
		conf, err := os.ReadFile(filepath.Join(dir, "edge/nginx.conf"))
		if err != nil || !strings.Contains(string(conf), s.Version) {
			t.Errorf("%s does not say who it is: %v", s.Version, err)
		}
		base := fstest.MapFS{"usr/lib/a": {Data: []byte("a")}, "usr/bin/b": {Data: []byte("b")}}
		o := s.system(builder.OS{Files: base, Cmdline: []string{"ro"}})
		var found []string
		err = fs.WalkDir(o.Files, ".", func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				_, err = fs.ReadFile(o.Files, p)
				found = append(found, p)
			}
			return err
		})
		want := len(base) + len(s.Files)
		if s.Variant != "" {
			want++
		}
		if err != nil || len(found) != want {
			t.Errorf("%s: the root has %v, %v; want %d files", s.Version, found, err, want)
		}
		for name := range s.Files {
			if strings.Contains(name, "bin/") && o.Modes[name] != 0o755 {
				t.Errorf("%s: %s has mode %v", s.Version, name, o.Modes[name])
			}
		}
		if o.Cmdline[0] != "ro" || len(o.Cmdline) != 1+len(s.Cmdline) {
			t.Errorf("%s: command line %v", s.Version, o.Cmdline)
		}
	}
}

// TestHang: the program that hangs is one.
func TestHang(t *testing.T) {
	f, err := elf.NewFile(strings.NewReader(hang))
	if err != nil {
		t.Fatal(err)
	}
	p := f.Progs[0]
	if f.Machine != elf.EM_X86_64 || f.Entry != p.Vaddr+120 || p.Filesz != uint64(len(hang)) {
		t.Errorf("%+v, %+v, %d bytes", f.FileHeader, p.ProgHeader, len(hang))
	}
}

// TestServer: what it sends is counted, and it can be slow and broken.
func TestServer(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Serve(dir)
	if err != nil {
		t.Fatal(err)
	}
	url := strings.Replace(s.Ref(), "10.0.2.2", "127.0.0.1", 1) + "/a"
	if ok, _, why := answer(t.Context(), http.MethodGet, url, nil); !ok {
		t.Error(why)
	}
	asked, sent := s.Asked()
	if len(asked) != 1 || asked[0] != "GET /a 200" || sent != 1<<20 || Paths(asked) != "/a" {
		t.Errorf("asked %v, %d bytes", asked, sent)
	}
	s.Break(true)
	if ok, _, _ := answer(t.Context(), http.MethodGet, url, nil); ok {
		t.Error("a broken server answers")
	}
	s.Break(false)
	s.Limit(1 << 10) // for ever, were it not for what comes next
	done := make(chan bool)
	go func() {
		ok, _, _ := answer(t.Context(), http.MethodGet, url, nil)
		done <- ok
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for sent = 0; sent == 0; _, sent = s.Asked() {
		<-tick.C
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if <-done {
		t.Error("a transfer outlived its server")
	}
}

// TestPoller: outages are found with who answered before and after, and only
// acknowledged entries count as written.
func TestPoller(t *testing.T) {
	var down atomic.Bool
	release := atomic.Value{}
	release.Store("1")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(Header, release.Load().(string))
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	p := poll(t.Context(), 10*time.Millisecond, func() string { return addr }, "/")
	count := func() int { p.mu.Lock(); defer p.mu.Unlock(); return len(p.samples) }
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, at := range []int{12, 54, 66} {
		for count() < at {
			<-tick.C
		}
		switch at {
		case 12:
			down.Store(true)
		case 54:
			release.Store("2")
			down.Store(false)
		}
	}
	seen := p.Stop()
	outages := seen.Outages(200 * time.Millisecond)
	if len(outages) != 1 || outages[0].Before != "1" || outages[0].After != "2" {
		t.Errorf("outages %v", outages)
	}
	if n := len(seen.OK().From("2")); n == 0 || len(seen.Failed().From("1")) == 0 {
		t.Errorf("%s", seen.Summary())
	}
	for _, e := range seen.Written() {
		if strings.HasSuffix(e, "-50") {
			t.Error("an entry counts as written that was refused")
		}
	}
}
