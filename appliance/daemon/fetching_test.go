// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/fetch"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
)

// slow is a Fetcher that plays a script, a step for each call.
type slow struct {
	source
	script []func(report func(supervise.Fetching)) error
	calls  int
}

func (s *slow) Need([]string) error { return nil }
func (s *slow) Loaded(string) error { return nil }
func (s *slow) Fetch(_ context.Context, _ string, report func(supervise.Fetching)) error {
	s.calls++
	return s.script[s.calls-1](report)
}

// TestFetchIsShown follows a first boot without images: it waits, it is
// refused, it fetches, and it needs nobody in between.
func TestFetchIsShown(t *testing.T) {
	f := one(t)
	var console lines
	dir := t.TempDir()
	root := t.TempDir()
	twoCores(t, root)
	synctest.Test(t, func(t *testing.T) {
		var d *Daemon
		look := func() status.Report {
			r, _ := d.feed.Get()
			return r
		}
		no := func(func(supervise.Fetching)) error {
			return &fetch.RefusedError{Image: "x.test/web:1", Answers: []string{"x.test answered 404 Not Found"}}
		}
		again := func(report func(supervise.Fetching)) error {
			report(supervise.Fetching{})
			if r := look(); r.Stack != "held" || len(r.Conditions) != 1 || r.Conditions[0].Code != "images-refused" {
				t.Errorf("while asking again: %s %+v", r.Stack, r.Conditions)
			}
			return no(nil)
		}
		full := func(func(supervise.Fetching)) error { return &fetch.NoRoomError{Need: 8e9, Free: 2e9} }
		waits := func(report func(supervise.Fetching)) error {
			report(supervise.Fetching{Waiting: "x.test/web:1: x.test cannot be found"})
			r := look()
			if r.Stack != "starting" || len(r.Conditions) != 1 || r.Conditions[0].Code != "images-unreachable" || r.Conditions[0].Remedy == "" {
				t.Errorf("while waiting: %s %+v", r.Stack, r.Conditions)
			}
			report(supervise.Fetching{Done: 120e6, Total: 890e6, Rate: 4.2e6, Left: 183 * time.Second})
			r = look()
			if want := "the images are being fetched: 120 of 890 MB, 4.2 MB/s, 3 min left"; len(r.Conditions) != 0 || r.Services[0].State != "waiting" || r.Services[0].Reason != want {
				t.Errorf("while fetching: %+v %+v, want %s", r.Conditions, r.Services, want)
			}
			return nil
		}
		f.Source = &slow{source: source{text: pinned}, script: []func(func(supervise.Fetching)) error{no, again, full, waits}}
		d = New(Config{Engine: fake.New(), Find: found{f: f}, Root: root, State: filepath.Join(dir, "state"), Run: filepath.Join(dir, "run"), Data: filepath.Join(dir, "data"), Console: &console})
		if err := d.identify(); err != nil {
			t.Fatal(err)
		}
		go func() {
			<-time.After(25 * time.Minute)
			if r := look(); r.Stack != "held" || r.Conditions[0].Code != "images-no-room" || !strings.Contains(r.Conditions[0].Text, "8.0 GB") {
				t.Errorf("without room: %s %+v", r.Stack, r.Conditions)
			}
		}()
		began := time.Now()
		if _, err := d.prepare(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 3*refusedAgain {
			t.Errorf("tried again after %s, want three times %s", took, refusedAgain)
		}
	})
	for text, n := range map[string]int{"the stack is held: x.test/web:1 cannot be had: x.test answered 404": 1, "the stack is held: the images need at least 8.0 GB": 1,
		"critical: the stack's images cannot be fetched yet: x.test/web:1: x.test cannot be found": 1, "fetching images, 120 of 890 MB": 1} {
		if got := strings.Count(console.String(), text); got != n {
			t.Errorf("the console has %q %d times, want %d:\n%s", text, got, n, console.String())
		}
	}
}

func TestFetchTexts(t *testing.T) {
	for want, f := range map[string]supervise.Fetching{
		"0 of 2 MB": {Total: 2e6}, "2 of 2 MB, 0.5 MB/s": {Done: 3e6, Total: 2e6, Rate: 5e5},
		"0 of 9000 MB, 1.0 MB/s, 2.5 h left": {Total: 9e9, Rate: 1e6, Left: 9000 * time.Second},
		"1 of 2 MB, 9.0 MB/s, 1 s left":      {Done: 1e6, Total: 2e6, Rate: 9e6, Left: time.Millisecond},
	} {
		if got := fetched(f); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
