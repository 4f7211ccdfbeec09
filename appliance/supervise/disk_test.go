// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/engine/fake"
)

func TestJournalRotatesAndKeepsHistory(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(dir, "boot")
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 64<<10)
	for range 120 { // 7.5 MiB: more than is kept
		if err := j.Write(Entry{Time: noon, Act: "seen", Because: long}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "journal*"))
	if err != nil || len(files) != journalKeep+1 {
		t.Errorf("%d files %v, want %d", len(files), files, journalKeep+1)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > journalMax {
			t.Errorf("%s: %v bytes, %v", f, st.Size(), err)
		}
	}
	h := NewHistory()
	h.Past["web"] = Past{Restarts: 7, Completed: &Completion{Generation: 2, Hash: "h", At: noon}}
	if err := j.Save(h); err != nil {
		t.Fatal(err)
	}
	j.Close()
	j, err = OpenJournal(dir, "boot")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	back, err := j.History()
	if err != nil || back.Past["web"].Restarts != 7 || back.Past["web"].Completed.Generation != 2 {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestDamagedHistoryIsPutAside(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "history.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := OpenJournal(dir, "boot")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	h, err := j.History()
	if err == nil || h.Past == nil || len(h.Past) != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "history.json.damaged")); err != nil {
		t.Error(err)
	}
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{"format":1,"boot":"b","past":{"web":{"failures":3}}}`))
	f.Add([]byte(`{"format":1,"boot":"b","shed_change":"2999-01-01T00:00:00Z","past":{"web":{"container":"id-web","shed":{"at":"2999-01-01T00:00:00Z"},"failing_since":"2999-01-01T00:00:00Z","failures":99}}}`))
	f.Add([]byte(`{"format":1,"boot":"b","past":{"web":{"ended":"retry","failures":-3,"attempts":-9,"not_before":"2999-01-01T00:00:00Z","limits":{"memory":-1},"asked":"2999-01-01T00:00:00Z","broken":"id-web"},"db":{"stopped":"2999-01-01T00:00:00Z"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHistory(b)
		if err != nil {
			return
		}
		// Whatever it holds, the supervisor must be able to go on from it.
		d := demo()
		o := Observed{Boot: "b", Services: map[string][]engine.Container{"db": {is(d, "db", "running", "unhealthy")}, "web": {is(d, "web", "exited", "none")}},
			Networks: map[string]bool{"demo_default": true}, Volumes: map[string]bool{"demo_data": true}, Pressure: Pressure{Level: "none", Since: noon}}
		h, _ = Advance(d, o, h, noon, func() float64 { return 0 })
		if p := Decide(d, o, h, noon); !p.Next.IsZero() && p.Next.After(noon.Add(24*365*time.Hour)) {
			t.Errorf("sleeps until %s", p.Next)
		}
		if _, err := json.Marshal(h); err != nil {
			t.Error(err)
		}
	})
}

// src is a Source of texts, which the fake engine takes for images.
type src struct {
	text map[string]string
	err  error
	n    int
}

func (s *src) WriteImage(_ context.Context, w io.Writer, digest string, progress func(done, total int64)) error {
	s.n++
	progress(1, 2)
	if _, err := io.WriteString(w, s.text[digest]); err != nil {
		return err
	}
	return s.err
}

func TestLoadImages(t *testing.T) {
	e := fake.New()
	e.AddImage("x/a@sha256:1")
	images := []Image{{Ref: "x/a:1", Pinned: "x/a@sha256:1", Digest: "sha256:1"}, {Ref: "x/b:1", Pinned: "x/b@sha256:2", Digest: "sha256:2", Size: 2}}
	s := &src{text: map[string]string{"sha256:2": "x/b@sha256:2"}}
	var seen []string
	report := func(p Progress) { seen = append(seen, fmt.Sprintf("%s %d/%d %t", p.Image, p.Done, p.Total, p.End)) }
	if err := LoadImages(t.Context(), e, s, images, report); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(seen, ", "); got != "x/b:1 1/2 false, x/b:1 2/2 true" || s.n != 1 {
		t.Errorf("progress %s, %d streamed", got, s.n)
	}
	images = append(images, Image{Ref: "x/c:1", Pinned: "x/c@sha256:3", Digest: "sha256:3"})
	bad := errors.New("bad blob")
	s = &src{text: map[string]string{"sha256:3": "x/c@sha256:3"}, err: bad}
	if err := LoadImages(t.Context(), e, s, images, report); !errors.Is(err, bad) || s.n != 1 {
		t.Errorf("a corrupt image: %v after %d tries", err, s.n)
	}
	if ok, _ := e.HasImage(t.Context(), "x/c@sha256:3"); ok {
		t.Error("the engine took a corrupt image")
	}
	s = &src{text: map[string]string{"sha256:3": "something else"}}
	if err := LoadImages(t.Context(), e, s, images, report); err == nil || s.n != loadTries || !strings.Contains(err.Error(), "does not resolve") {
		t.Errorf("an image that does not resolve: %v after %d tries", err, s.n)
	}
}

func TestWriteFiles(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	if err := os.WriteFile(from, []byte("pw"), 0o444); err != nil {
		t.Fatal(err)
	}
	var owned []string
	chown := func(path string, uid, gid int) error {
		owned = append(owned, fmt.Sprintf("%s %d:%d", filepath.Base(path), uid, gid))
		return nil
	}
	files := []File{{Path: filepath.Join(dir, "a", "x"), Content: []byte("1"), Mode: 0o400, UID: 5, GID: 6}, {Path: filepath.Join(dir, "a", "y"), From: from, Mode: 0o444}}
	for range 2 { // the second time nothing is written
		if err := WriteFiles(files, chown); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(owned); got != "[x.new 5:6 y.new 0:0]" {
		t.Errorf("owners set: %s", got)
	}
	if b, err := os.ReadFile(files[1].Path); err != nil || string(b) != "pw" {
		t.Errorf("%q %v", b, err)
	}
}
