// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/settings"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/stack"
)

// budgeted is a stack of two services that asks for some memory.
func budgeted(t *testing.T, memory string) *Found {
	t.Helper()
	f := one(t)
	dir := t.TempDir()
	text := `name: demo
services:
  db:
    image: x.test/web:1
    volumes: ["data:/data"]
    deploy: {resources: {limits: {memory: ` + memory + `, cpus: "0.5"}, reservations: {memory: ` + memory + `}}}
    x-holdfast: {class: critical}
  web:
    image: x.test/web:1
    x-holdfast: {class: best-effort}
volumes:
  data: {x-holdfast: {disk: 1GiB}}
`
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	_, digest, _ := strings.Cut(pinned, "@")
	st, err := stack.Load(t.Context(), dir, stack.Options{Digests: map[string]string{"x.test/web:1": digest}})
	if err != nil {
		t.Fatal(err)
	}
	f.Stack, f.Source = st, source{text: pinned}
	return f
}

func TestBudgetIsShown(t *testing.T) {
	client, _, _ := start(t, Config{Engine: fake.New(), Find: found{f: budgeted(t, "1G")}})
	r := await(t, client, "healthy")
	if b := r.Budget; b == nil || !b.Admitted || b.Node.CPU != 2 || b.Node.Memory != 4<<30 || b.Guaranteed.Memory < 1<<30 || b.Reserve.Memory <= 0 {
		t.Fatalf("%+v", b)
	}
	db := r.Services[0]
	if db.Name != "db" || db.Class != "critical" || db.Budget == nil || db.Budget.Limit.Memory != 1<<30 || db.Budget.Limit.CPU != 0.5 ||
		len(db.Budget.Volumes) != 1 || db.Budget.Volumes[0] != (status.VolumeBudget{Name: "data", Bytes: 1 << 30}) {
		t.Errorf("%+v %+v", db, db.Budget)
	}
	if web := r.Services[1]; web.Class != "best-effort" || !web.Budget.Sheddable {
		t.Errorf("%+v %+v", web, web.Budget)
	}
}

func TestTooLargeAStackIsHeld(t *testing.T) {
	e := fake.New()
	client, console, _ := start(t, Config{Engine: e, Find: found{f: budgeted(t, "64G")}})
	r := await(t, client, "held")
	c := condition(r, "budget-refused")
	if c.Severity != "critical" || !strings.Contains(c.Text, "db") || !strings.Contains(c.Text, "\n") || r.Budget == nil || r.Budget.Admitted {
		t.Errorf("%+v %+v", c, r.Budget)
	}
	if strings.Contains(console.String(), "?") || !strings.Contains(console.String(), "holdfast: the stack is held: demo does not fit") {
		t.Errorf("console:\n%s", console)
	}
	neverAsked(t, e)
}

func TestUnknownSizeIsHeld(t *testing.T) {
	client, _, _ := start(t, Config{Engine: fake.New(), Find: found{f: budgeted(t, "1G")}, Size: "XXL"})
	if c := condition(await(t, client, "held"), "budget-refused"); !strings.Contains(c.Text, "XXL") || !strings.Contains(c.Remedy, "size") {
		t.Errorf("%+v", c)
	}
}

// TestResize: a machine that is another one is told of until the next boot.
func TestResize(t *testing.T) {
	state := t.TempDir()
	f := budgeted(t, "1G")
	run := func(memory, boot string) status.Condition {
		t.Helper()
		root := t.TempDir()
		for name, text := range map[string]string{"proc/meminfo": "MemTotal: " + memory + " kB\nMemAvailable: 1000000 kB\n", "proc/sys/kernel/random/boot_id": boot + "\n"} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		client, _, stop := start(t, Config{Root: root, Engine: fake.New(), Find: found{f: f}, State: state, Data: filepath.Join(state, "data")})
		defer stop()
		return condition(await(t, client, "healthy"), "budget-changed")
	}
	if c := run("4194304", "one"); c.Code != "" {
		t.Errorf("the first start: %+v", c)
	}
	if c := run("4190000", "two"); c.Code != "" {
		t.Errorf("a few KiB less: %+v", c)
	}
	for range 2 {
		c := run("8388608", "three")
		if c.Severity != "info" || !strings.Contains(c.Text, "machine: memory: 4.00 GiB -> 8 GiB") {
			t.Errorf("twice the memory: %+v", c)
		}
	}
	if c := run("8388608", "four"); c.Code != "" {
		t.Errorf("the next boot: %+v", c)
	}
	if err := os.WriteFile(filepath.Join(state, "budget.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if c := run("4194304", "five"); c.Code != "" {
		t.Errorf("a damaged record: %+v", c)
	}
}

func TestBoxMetrics(t *testing.T) {
	user := config.MetricsUser{Name: "prometheus", PasswordHash: "$2y$12$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyzABCDE"}
	for _, c := range []struct {
		name   string
		in     config.Metrics
		tls    bool
		listen string
		web    []string // in the web configuration, nil for none
		closed bool
	}{
		{"default", config.Metrics{Listen: config.MetricsListen}, true, config.MetricsListen, nil, false},
		{"off", config.Metrics{Listen: config.MetricsOff}, true, config.MetricsOff, nil, false},
		{"open", config.Metrics{Listen: ":4653", Users: []config.MetricsUser{user}}, true, ":4653", []string{"cert_file", "key_file", "TLS12", "prometheus", "$2y$12$"}, false},
		{"no certificate", config.Metrics{Listen: ":4653", Users: []config.MetricsUser{user}}, false, config.MetricsListen, []string{"prometheus"}, true},
		{"insecure", config.Metrics{Listen: ":4653", Insecure: true}, false, ":4653", nil, false},
		{"loopback with users", config.Metrics{Listen: "127.0.0.1:9", Users: []config.MetricsUser{user}}, true, "127.0.0.1:9", []string{"prometheus"}, false},
	} {
		root := t.TempDir()
		e := config.Effective{Config: config.Default()}
		e.Config.Metrics = c.in
		if err := e.Save(root); err != nil {
			t.Fatal(err)
		}
		if c.tls {
			for _, name := range []string{settings.TLSCertificate, settings.TLSKey} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, name), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		d := New(Config{Root: root, Run: filepath.Join(root, "run/holdfast")})
		d.feed = status.NewFeed(status.Report{})
		m, err := d.boxMetrics()
		if err != nil || m.Listen != c.listen || (m.WebConfig != "") != (c.web != nil) || (len(d.metricsClosed) > 0) != c.closed {
			t.Errorf("%s: %+v %v %v", c.name, m, err, d.metricsClosed)
			continue
		}
		if c.web == nil {
			continue
		}
		text, err := os.ReadFile(m.WebConfig)
		if err != nil || !json.Valid(text) {
			t.Errorf("%s: %v %s", c.name, err, text)
		}
		if st, err := os.Stat(m.WebConfig); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", c.name, st, err)
		}
		for _, want := range c.web {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s: no %q in %s", c.name, want, text)
			}
		}
		if c.closed && strings.Contains(string(text), "tls") {
			t.Errorf("%s: %s", c.name, text)
		}
	}
}

// TestConfinedHost: without CAP_SYS_RESOURCE nothing is given an OOM score
// below 0, and that is said.
func TestConfinedHost(t *testing.T) {
	for caps, want := range map[string]bool{"000001fffeffffff": true, "000001ffffffffff": false, "x": false} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, "proc/self"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "proc/self/status"), []byte("Name:\tholdfast\nCapEff:\t"+caps+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		e := fake.New()
		client, _, stop := start(t, Config{Root: root, Engine: e, Find: found{f: budgeted(t, "1G")}})
		r := await(t, client, "healthy")
		c, _ := e.Get("db")
		score := e.Spec(c.ID).Host.OomScoreAdj
		if (condition(r, "oom-protection-observed").Code != "") != want || (score < 0) == want {
			t.Errorf("capabilities %s: score %d, %+v", caps, score, r.Conditions)
		}
		stop()
	}
}
