// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
)

// releases is a box that can have other releases.
type releases struct {
	control
	mu   sync.Mutex
	ask  upgrade.Ask
	back upgrade.Back
	at   string
	err  error
	end  status.Operation
	done chan struct{}
}

func (r *releases) begun(verb string) (status.Operation, error) {
	return status.Operation{ID: "x-9", Verb: verb, State: "running", Notes: []string{"the kept 0.9.0 is given up"}}, r.err
}

func (r *releases) Upgrade(_ context.Context, a upgrade.Ask) (status.Operation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ask = a
	return r.begun(api.Upgrade)
}

func (r *releases) Rollback(_ context.Context, b upgrade.Back) (status.Operation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.back = b
	return r.begun(api.Rollback)
}

func (r *releases) Drill(_ context.Context, at string) (status.Operation, error) {
	r.at = at
	return r.begun(api.Drill)
}

func checkedOne() upgrade.Checked {
	return upgrade.Checked{Candidate: &upgrade.Candidate{Target: upgrade.Target{Name: "demo", Version: "1.1.0", Digest: "sha256:" + strings.Repeat("ab", 32)}},
		Plan: []string{"fetch and verify all of it", "reboot into slot B"}, Notes: []string{"demo 0.9.0 cannot be gone back to any more"},
		Refused: []upgrade.Refused{{Code: upgrade.CodeMemory, Why: "demo 1.1.0 guarantees its services 8 GiB", Remedy: "give the machine more memory"}}}
}

func (r *releases) CheckUpgrade(context.Context, upgrade.Ask) (upgrade.Checked, error) {
	return checkedOne(), nil
}

func (r *releases) CheckRollback(context.Context, upgrade.Back) (upgrade.Checked, error) {
	return upgrade.Checked{Plan: []string{"reboot into slot A"}, Notes: []string{"what was written since noon is lost"}}, nil
}

func (r *releases) CancelUpgrade(context.Context) error { return r.err }

func (r *releases) SetChannel(c string) (api.Channel, error) {
	return api.Channel{Channel: c, Source: "https://r.example", Set: true}, nil
}

func rows() []status.UpgradeResult {
	return []status.UpgradeResult{
		{Generation: 3, Runs: 2, Kind: "upgrade", From: "demo 1.1.0", To: "demo 1.1.1", Result: "rolled-back", Why: "web is not healthy after 15m0s", End: noon.Add(time.Hour),
			Down: 61_500, Fetched: 3 << 20, Reused: 97 << 20, Reboot: true, Boots: []string{"b1", "b2", "b3"},
			Evidence: []status.Evidence{{What: "log of web", Lines: []string{"cannot connect\x1b[31m", "giving up"}}}},
		{Generation: 2, Runs: 2, Kind: "upgrade", From: "demo 1.0.0", To: "demo 1.1.0", Result: "committed", End: noon},
	}
}

func (r *releases) History() ([]status.UpgradeResult, error) { return rows(), nil }

func (r *releases) Why(n int) (upgrade.Why, error) {
	if n > 3 {
		return upgrade.Why{}, &api.Problem{Status: 404, Text: "there was no generation 4", Remedy: "holdfast history"}
	}
	return upgrade.Why{Sentence: "demo 1.1.1 was rolled back: web is not healthy", Result: rows()[0]}, nil
}

func (r *releases) Forecast(context.Context) ([]upgrade.Outlook, error) {
	t := upgrade.Target{Name: "demo", Version: "2.0.0", Channels: []string{"beta", "stable"}}
	return []upgrade.Outlook{{Target: upgrade.Target{Name: "demo", Version: "1.2.0"}, Fits: true},
		{Target: t, Refused: []upgrade.Refused{{Why: "too little memory", Remedy: "give it more"}, {Why: "too small a disk", Remedy: "make it larger"}}}}, nil
}

func (r *releases) Operation(string) (status.Operation, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end, r.done, nil
}

// serveReleases answers with a box that can have other releases.
func serveReleases(t *testing.T) (string, *releases, func()) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	r := report()
	r.Upgrade = &status.Upgrade{State: "idle", Channel: "stable", Source: "https://r.example"}
	c := &releases{control: control{status.NewFeed(r), &answers{}}, done: make(chan struct{})}
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { api.Serve(ctx, l, api.Handler(c.feed, c)) })
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return socket, c, stop
}

func TestParseRef(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("demo.bundle", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"1.1.0": " 1.1.0", "2.0.0-rc.1": " 2.0.0-rc.1", "https://r.example/demo": "https://r.example/demo ", "https://r.example/demo#1.1.0": "https://r.example/demo 1.1.0",
		"oci://r.example/demo#2": "oci://r.example/demo 2", "usb:": "usb: ", "usb:#1.0": "usb: 1.0", ".": dir + " ", "demo.bundle": filepath.Join(dir, "demo.bundle") + " ",
		"./demo.bundle#1.2": filepath.Join(dir, "demo.bundle") + " 1.2",
		"nowhere":           "!", "": "!", "a\nb": "!",
	} {
		depot, version, err := parseRef(ref)
		got := depot + " " + version
		if err != nil {
			got = "!"
			if Code(err) != ExitUsage {
				t.Errorf("%q: %v", ref, err)
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", ref, got, want)
		}
	}
}

// TestReleaseAnswers: what people see of other releases.
func TestReleaseAnswers(t *testing.T) {
	socket, _, _ := serveReleases(t)
	var b strings.Builder
	for _, line := range []string{"upgrade --check", "rollback --check", "history", "why", "why 3", "why 9", "why x", "channel", "channel beta", "channel beta --reset", "forecast"} {
		code, out, errs := run(t.Context(), append(strings.Fields(line), "--socket", socket)...)
		b.WriteString("$ holdfast " + line + "\n" + out + errs)
		if code != 0 {
			b.WriteString("exit code " + string(rune('0'+code)) + "\n")
		}
	}
	golden(t, "releases", b.String())
	for _, line := range []string{"upgrade --check --json", "history --json", "why --json", "channel --json", "forecast --json"} {
		_, out, errs := run(t.Context(), append(strings.Fields(line), "--socket", socket)...)
		if !json.Valid([]byte(out)) {
			t.Errorf("%s: %s %s", line, out, errs)
		}
	}
}

func TestUpgradeAsks(t *testing.T) {
	socket, c, _ := serveReleases(t)
	code, out, errs := run(t.Context(), "upgrade", "https://r.example#1.1.0", "--at", "Sun 02:00-04:00", "--force", "--accept-expired", "--socket", socket)
	want := upgrade.Ask{Ref: "https://r.example", Version: "1.1.0", At: "Sun 02:00-04:00", Force: true, AcceptExpired: true}
	if code != 0 || c.ask != want || !strings.Contains(out, "asked for") || !strings.Contains(errs, "given up") {
		t.Errorf("%d %+v\n%s%s", code, c.ask, out, errs)
	}
	if code, out, _ := run(t.Context(), "rollback", "--to", "2", "--keep-data", "--no-wait", "--socket", socket); code != 0 || out != "x-9\n" || c.back != (upgrade.Back{To: 2, KeepData: true}) {
		t.Errorf("%d %s %+v", code, out, c.back)
	}
	c.err = &api.Problem{Status: 422, Code: upgrade.CodeEpoch, Text: "too old", Remedy: "take a later one"}
	if code, _, errs := run(t.Context(), "upgrade", "--socket", socket); code != ExitRefused || !strings.Contains(errs, "too old; take a later one") {
		t.Errorf("%d %s", code, errs)
	}
}

// TestUpgradeFollows: how far it is, and the end of it.
func TestUpgradeFollows(t *testing.T) {
	for _, c := range []struct {
		name string
		end  status.Operation
		code int
		text string
	}{
		{"committed", status.Operation{State: "done", Result: &status.UpgradeResult{To: "demo 1.1.0", Result: "committed", Runs: 2, Down: 12_300}}, 0, "demo 1.1.0 runs, generation 2, the services were away for 12.3 s"},
		{"rolled back", status.Operation{State: "failed", Result: &status.UpgradeResult{Kind: "upgrade", To: "demo 1.1.0", Result: "rolled-back", Why: "web died"}}, ExitRolledBack, "web died; holdfast why"},
		{"failed", status.Operation{State: "failed", Error: "no room"}, ExitFailed, "no room"},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket, r, _ := serveReleases(t)
			r.end = c.end
			r.feed.Update(func(r *status.Report) {
				r.Upgrade = &status.Upgrade{State: "fetching", Target: "demo 1.1.0", Step: "the root image", Done: 30 << 20, Total: 100 << 20, Reused: 20 << 20, Rate: 2 << 20, Left: 35}
			})
			told := &trigger{on: "35s left", do: func() { close(r.done) }}
			var out bytes.Buffer
			code := Execute(t.Context(), IO{&out, told}, []string{"upgrade", "--socket", socket})
			if code != c.code || !strings.Contains(out.String()+told.String(), c.text) {
				t.Errorf("%d %s%s", code, &out, told)
			}
			for _, want := range []string{"this may be closed", "demo 1.1.0: fetching, the root image, 30 MiB of 100 MiB (20 MiB were here already), 2.0 MiB/s, 35s left"} {
				if !strings.Contains(told.String(), want) {
					t.Errorf("no %q in %s", want, told)
				}
			}
		})
	}
}

// trigger does something once a text was written to it.
type trigger struct {
	mu   sync.Mutex
	b    strings.Builder
	on   string
	do   func()
	once sync.Once
}

func (w *trigger) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.b.Write(p)
	if strings.Contains(w.b.String(), w.on) {
		w.once.Do(w.do)
	}
	return n, err
}

func (w *trigger) String() string { w.mu.Lock(); defer w.mu.Unlock(); return w.b.String() }

var _ io.Writer = (*trigger)(nil)

// TestUpgradeReboots: the end of the connection is no failure where the box
// was about to reboot.
func TestUpgradeReboots(t *testing.T) {
	socket, r, stop := serveReleases(t)
	r.feed.Update(func(r *status.Report) {
		r.Upgrade = &status.Upgrade{State: "switching", Target: "demo 1.1.0", Step: "reboot into slot B"}
	})
	var out bytes.Buffer
	told := &trigger{on: "reboot into slot B", do: func() { go stop() }}
	code := Execute(t.Context(), IO{&out, told}, []string{"upgrade", "--socket", socket})
	if code != 0 || !strings.Contains(out.String(), "reboots to go on") || !strings.Contains(out.String(), "holdfast history") {
		t.Errorf("%d %s%s", code, &out, told)
	}
}

func TestUpgradeRows(t *testing.T) {
	for _, c := range []struct {
		u    status.Upgrade
		want string
	}{
		{status.Upgrade{State: "idle"}, ""},
		{status.Upgrade{State: "idle", Available: "demo 1.1.0", Kept: "demo 0.9.0", KeptGeneration: 3}, "releases\tdemo 1.1.0 is available, demo 0.9.0 is kept as generation 3\n"},
		{status.Upgrade{State: "idle", Last: &rows()[0]}, "upgrade\tlast: upgrade to demo 1.1.1, rolled-back: web is not healthy after 15m0s\n"},
		{status.Upgrade{State: "trial", Target: "demo 1.1.0", Step: "web is starting", Trial: true, Deadline: noon}, "upgrade\tdemo 1.1.0: trial, web is starting, closed to the outside until 12:00:00 UTC at most\n"},
	} {
		var b bytes.Buffer
		upgradeRows(&b, status.Report{Upgrade: &c.u})
		if b.String() != c.want {
			t.Errorf("%+v: %q, want %q", c.u, b.String(), c.want)
		}
	}
}

// TestWaitHealthyOutlastsATrial: what is on trial is not what the box settles
// for.
func TestWaitHealthyOutlastsATrial(t *testing.T) {
	socket, r, _ := serveReleases(t)
	r.feed.Update(func(r *status.Report) {
		r.Stack, r.Services = "healthy", nil
		r.Upgrade = &status.Upgrade{State: "trial", Target: "demo 1.1.0", Trial: true}
	})
	told := &trigger{on: "the trial of demo 1.1.0 to be decided", do: func() {
		go r.feed.Update(func(r *status.Report) { r.Upgrade = &status.Upgrade{State: "idle"} })
	}}
	if code := Execute(t.Context(), IO{&bytes.Buffer{}, told}, []string{"wait-healthy", "--timeout", "30s", "--socket", socket}); code != 0 {
		t.Errorf("%d %s", code, told)
	}
}

func TestNoUpgradesElsewhere(t *testing.T) {
	socket, _ := serve(t, report())
	if code, _, errs := run(t.Context(), "history", "--socket", socket); code == 0 || errs == "" {
		t.Errorf("%d %s", code, errs)
	}
	var p *api.Problem
	if _, err := api.NewClient(socket).History(t.Context()); !errors.As(err, &p) || p.Status != 404 {
		t.Errorf("%v", err)
	}
}
