// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// machine is an engine with its units, on the test's clock.
type machine struct {
	mu sync.Mutex
	// hung units do not answer; deaf ones stay so over a restart.
	hung, deaf map[string]bool
	state      map[string]string
	since      map[string]time.Time
	acts       []string
	restartErr error
}

func newMachine() *machine {
	m := &machine{hung: map[string]bool{}, deaf: map[string]bool{}, state: map[string]string{}, since: map[string]time.Time{}}
	for _, u := range []string{Docker, Containerd} {
		m.state[u], m.since[u] = "active", time.Now()
	}
	return m
}

func (m *machine) ask(ctx context.Context, units ...string) error {
	m.mu.Lock()
	hangs := slices.ContainsFunc(units, func(u string) bool { return m.hung[u] || m.state[u] != "active" })
	m.mu.Unlock()
	if !hangs {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (m *machine) Ping(ctx context.Context) error    { return m.ask(ctx, Docker) }
func (m *machine) Runtime(ctx context.Context) error { return m.ask(ctx, Docker, Containerd) }

func (m *machine) State(_ context.Context, unit string) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return State{Active: m.state[unit], Since: time.Since(m.since[unit])}, nil
}

func (m *machine) Trace(_ context.Context, unit string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acts = append(m.acts, "trace "+unit)
	return nil
}

func (m *machine) Restart(_ context.Context, unit string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acts = append(m.acts, "restart "+unit)
	if m.restartErr == nil {
		m.state[unit], m.since[unit], m.hung[unit] = "active", time.Now(), m.deaf[unit]
	}
	return m.restartErr
}

func (m *machine) set(unit, state string, hung bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state[unit], m.since[unit], m.hung[unit] = state, time.Now(), hung
}

// hang leaves systemd's view as it was.
func (m *machine) hang(unit string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hung[unit] = true
}

func (m *machine) did() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.acts)
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func codes(cs []status.Condition) string {
	var out []string
	for _, c := range cs {
		out = append(out, c.Code)
	}
	return strings.Join(out, " ")
}

func watch(t *testing.T, m *machine, units Units) *Watcher {
	w := New(Config{Engine: m, Units: units})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func TestHang(t *testing.T) {
	for _, unit := range []string{Docker, Containerd} {
		t.Run(unit, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine()
				w := watch(t, m, m)
				pass(time.Hour)
				if len(m.did()) != 0 || len(w.Conditions()) != 0 {
					t.Fatalf("%v %v", m.did(), w.Conditions())
				}
				m.hang(unit)
				pass(time.Minute)
				if got := m.did(); !slices.Equal(got, []string{"trace " + unit, "restart " + unit}) {
					t.Fatalf("%v", got)
				}
				pass(time.Minute)
				if got := codes(w.Conditions()); got != "engine-restarted" {
					t.Errorf("%s", got)
				}
				pass(time.Hour)
				if len(w.Conditions()) != 0 || len(m.did()) != 2 {
					t.Errorf("%v %v", m.did(), w.Conditions())
				}
			})
		})
	}
}

// TestNotOurs: what starts, stops or was stopped is left alone.
func TestNotOurs(t *testing.T) {
	for state, want := range map[string]string{"activating": "engine-hung", "deactivating": "engine-hung", "inactive": "engine-stopped", "": "engine-hung"} {
		t.Run(state, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine()
				m.set(Docker, state, false)
				w := watch(t, m, m)
				pass(time.Hour)
				if got := m.did(); len(got) != 0 {
					t.Errorf("%v", got)
				}
				if got := codes(w.Conditions()); got != want {
					t.Errorf("conditions %q, want %q", got, want)
				}
			})
		})
	}
}

// TestMerelyStarting: a unit that became active a moment ago has time.
func TestMerelyStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		watch(t, m, m)
		m.set(Docker, "active", true)
		pass(25 * time.Second)
		m.set(Docker, "active", false)
		pass(time.Minute)
		if got := m.did(); len(got) != 0 {
			t.Errorf("%v", got)
		}
	})
}

func TestFailedUnitIsStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		watch(t, m, m)
		m.set(Docker, "failed", false)
		pass(30 * time.Second)
		if got := m.did(); !slices.Equal(got, []string{"restart " + Docker}) {
			t.Errorf("%v", got)
		}
	})
}

// TestThrottle: an engine that no restart helps is restarted ever more rarely.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.deaf[Docker], m.hung[Docker] = true, true
		w := watch(t, m, m)
		pass(24 * time.Hour)
		n := 0
		for _, a := range m.did() {
			if strings.HasPrefix(a, "restart") {
				n++
			}
		}
		// A day holds 90 of the longest pauses.
		if n < 80 || n > 100 {
			t.Errorf("%d restarts", n)
		}
		if got := codes(w.Conditions()); got != "engine-hung" {
			t.Errorf("%s", got)
		}
	})
}

// TestContainerdThenDocker: where a new containerd does not help, the engine
// is next.
func TestContainerdThenDocker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.deaf[Containerd], m.hung[Containerd] = true, true
		watch(t, m, m)
		pass(10 * time.Minute)
		if got := m.did(); !slices.Contains(got, "restart "+Docker) || slices.Index(got, "restart "+Containerd) > slices.Index(got, "restart "+Docker) {
			t.Errorf("%v", got)
		}
	})
}

func TestWithoutSystemd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.hung[Docker] = true
		w := watch(t, m, nil)
		pass(5 * time.Minute)
		if c := w.Conditions(); len(m.did()) != 0 || codes(c) != "engine-hung" || !strings.Contains(c[0].Text, "no systemd") {
			t.Errorf("%v %v", m.did(), c)
		}
	})
}

func TestRestartFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.hung[Docker], m.restartErr = true, errors.New("access denied")
		var said []string
		w := New(Config{Engine: m, Units: m, Event: func(s string) { said = append(said, s) }})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		w.Run(ctx)
		if c := w.Conditions(); codes(c) != "engine-hung" || !strings.Contains(c[0].Text, "access denied") {
			t.Errorf("%v", c)
		}
		if len(said) < 2 || !strings.HasPrefix(said[0], "docker.service has not answered for ") || !strings.HasSuffix(said[1], "access denied") {
			t.Errorf("%q", said)
		}
	})
}

func TestParseShow(t *testing.T) {
	for in, want := range map[string]State{
		"LoadState=loaded\nActiveState=active\nStateChangeTimestampMonotonic=1000000\n": {"active", 9 * time.Second},
		"LoadState=loaded\nActiveState=inactive\nStateChangeTimestampMonotonic=0\n":     {"inactive", 0},
		"LoadState=not-found\nActiveState=inactive\n":                                   {"", 0},
		"ActiveState=failed\nLoadState=loaded\nStateChangeTimestampMonotonic=x\n":       {"failed", 0},
	} {
		if got, err := parseShow([]byte(in), 10*time.Second); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	if _, err := parseShow(nil, 0); err == nil {
		t.Error("nothing was taken for a state")
	}
}

type commands [][]string

func (c *commands) Run(_ context.Context, argv ...string) ([]byte, error) {
	*c = append(*c, argv)
	if argv[1] == "kill" || argv[1] == "reset-failed" {
		return nil, errors.New("no process")
	}
	return []byte("LoadState=loaded\nActiveState=active\nStateChangeTimestampMonotonic=1\n"), nil
}

func TestSystemd(t *testing.T) {
	c := &commands{}
	s := Systemd{Run: c}
	if st, err := s.State(t.Context(), Docker); err != nil || st.Active != "active" || st.Since <= 0 {
		t.Errorf("%+v %v", st, err)
	}
	if err := s.Restart(t.Context(), Docker); err != nil {
		t.Error(err)
	}
	if last := strings.Join((*c)[len(*c)-1], " "); last != "systemctl restart docker.service" {
		t.Error(last)
	}
}
