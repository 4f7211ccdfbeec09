// SPDX-License-Identifier: Apache-2.0

package pressure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// calmSample is a machine of 2 GiB with all there could be to spare.
func calmSample() Sample {
	return Sample{MemoryTotal: 2 * gib, MemoryAvailable: gib, PSI: true, Disks: []Room{{"data", 50 * gib, 100 * gib}}}
}

// world is a machine under a test's hand.
type world struct {
	mu sync.Mutex
	s  Sample
	e  error
}

func (w *world) sample() (Sample, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.s
	s.Time, s.Disks = time.Now(), slices.Clone(s.Disks)
	return s, w.e
}

func (w *world) set(f func(*Sample)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.s)
}

// TestStory is an afternoon of a machine, in simulated time: each line is what
// changes, and when the state followed.
func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &world{s: calmSample()}
		var log strings.Builder
		start := time.Now()
		var w *Watcher
		w = New(Config{Sample: m.sample, Wake: func() {
			s := w.State()
			fmt.Fprintf(&log, "%4.0f s %s %s: %s\n", time.Since(start).Seconds(), s.Level, s.Resource, s.Text)
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		at := func(second int, f func(*Sample)) {
			<-time.After(time.Until(start.Add(time.Duration(second)*time.Second + 500*time.Millisecond)))
			m.set(f)
		}
		at(11, func(s *Sample) { s.MemoryAvailable = 150 * mib })  // under 163 MiB
		at(31, func(s *Sample) { s.MemoryAvailable = 170 * mib })  // over it, not by a quarter
		at(61, func(s *Sample) { s.MemoryAvailable = 70 * mib })   // under 81 MiB
		at(71, func(s *Sample) { s.MemoryAvailable = gib })        // room again
		at(101, func(s *Sample) { s.MemoryFull = 0.9 })            // a service fights its own limit
		at(121, func(s *Sample) { s.MemoryAvailable = 300 * mib }) // and now memory is short too
		at(141, func(s *Sample) { s.MemoryFull, s.MemoryAvailable = 0, gib })
		at(171, func(s *Sample) { s.Disks[0].Free = 3 * gib })
		at(201, func(s *Sample) { s.Disks[0].Free = gib })
		at(221, func(s *Sample) { s.Disks[0].Free = 30 * gib; s.IOFull10 = 0.7 })
		at(261, func(s *Sample) { s.IOFull60 = 0.85 })
		at(281, func(s *Sample) { s.IOFull10, s.IOFull60 = 0, 0 })
		at(301, func(s *Sample) { s.MemoryAvailable = 10 * mib }) // a burst
		at(303, func(s *Sample) { s.MemoryAvailable = gib })
		<-time.After(time.Minute)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		const want = `  15 s warn memory: 150 MiB of 2.0 GiB memory are available, less than 163 MiB
  64 s high memory: 70 MiB of 2.0 GiB memory are available, less than 81 MiB
  82 s none : 
 122 s warn memory: for 90 % of the time nothing went on for want of memory, 300 MiB are available
 124 s high memory: for 90 % of the time nothing went on for want of memory, 300 MiB are available
 152 s none : 
 172 s warn disk: data has 3.0 GiB of 100 GiB left
 204 s high disk: data has 1.0 GiB of 100 GiB left
 232 s warn io: for 70 % of the time nothing went on because of disks
 264 s high io: for 85 % of the time nothing went on because of disks
 292 s none : 
 302 s warn memory: 10 MiB of 2.0 GiB memory are available, less than 81 MiB
 314 s none : 
`
		if got := log.String(); got != want {
			t.Errorf("got\n%s", got)
		}
	})
}

// TestTrigger: a stall is seen when the kernel reports it, not at the next
// sample; a trigger that can't be had ends, and samples go on.
func TestTrigger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &world{s: calmSample()}
		start := time.Now()
		stall := make(chan bool)
		w := New(Config{Sample: m.sample, Trigger: func(ctx context.Context) bool {
			select {
			case ok := <-stall:
				return ok
			case <-ctx.Done():
				return false
			}
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		<-time.After(time.Second)
		m.set(func(s *Sample) { s.MemoryAvailable = 10 * mib })
		stall <- true
		synctest.Wait()
		if s := w.State(); s.Level != Warn || s.Since.Sub(start) != time.Second {
			t.Errorf("%+v", s)
		}
		stall <- false
		<-time.After(3 * time.Second)
		if s := w.State(); s.Level != High {
			t.Errorf("%+v", s)
		}
		cancel()
		<-done
	})
}

func TestConditions(t *testing.T) {
	m := &world{s: calmSample()}
	woken := 0
	w := New(Config{Sample: m.sample, Wake: func() { woken++ }})
	codes := func() string {
		w.look()
		var list []string
		for _, c := range w.Conditions() {
			if c.Remedy == "" || c.Text == "" {
				t.Errorf("%+v lacks something", c)
			}
			list = append(list, c.Code+" "+c.Severity)
		}
		return strings.Join(list, ", ")
	}
	if len(w.Conditions()) != 0 {
		t.Error("conditions before anything was seen")
	}
	if got := codes(); got != "" {
		t.Error(got)
	}
	m.set(func(s *Sample) { s.PSI = false })
	if got := codes(); got != "pressure-without-psi info" {
		t.Error(got)
	}
	m.set(func(s *Sample) { s.Disks[0].Free = 3 * gib })
	if got := codes(); got != "disk-pressure warning, pressure-without-psi info" {
		t.Error(got)
	}
	m.e = errors.New("no such file")
	if got := codes(); got != "disk-pressure warning, pressure-unknown warning" {
		t.Error(got)
	}
	if woken != 2 {
		t.Errorf("woken %d times", woken)
	}
}

// TestMonotonic: with more of everything to spare the level is never higher,
// and what is short for good is seen within the time that is promised.
func TestMonotonic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.Int64Range(512*mib, 512*gib).Draw(t, "total")
		s := Sample{
			MemoryTotal: total, MemoryAvailable: rapid.Int64Range(0, total).Draw(t, "available"), PSI: rapid.Bool().Draw(t, "psi"),
			MemoryFull: rapid.Float64Range(0, 1).Draw(t, "full"), IOFull10: rapid.Float64Range(0, 1).Draw(t, "io10"), IOFull60: rapid.Float64Range(0, 1).Draw(t, "io60"),
			Disks: []Room{{"data", rapid.Int64Range(0, total).Draw(t, "free"), total}},
		}
		better := s
		better.MemoryAvailable = rapid.Int64Range(s.MemoryAvailable, total).Draw(t, "more")
		better.MemoryFull /= 2
		better.IOFull10, better.IOFull60 = s.IOFull10/2, s.IOFull60/2
		settle := func(s Sample) State {
			var m Memo
			var st State
			for i := range 5 {
				s.Time = time.Unix(int64(1000+i), 0)
				m, st = Decide(m, s)
			}
			return st
		}
		rank := map[string]int{None: 0, Warn: 1, High: 2}
		a, b := settle(s), settle(better)
		if rank[b.Level] > rank[a.Level] {
			t.Errorf("%+v gives %+v, the better %+v gives %+v", s, a, better, b)
		}
		if (a.Level == None) != (a.Text == "") || (a.Level == None) != (a.Resource == "") {
			t.Errorf("%+v", a)
		}
		if s.MemoryAvailable < memoryMark(total) && a.Level != High {
			t.Errorf("%+v gives %+v", s, a)
		}
	})
}

func TestMachine(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sample := Machine(root, func() []Room { return []Room{{"data", 1, 2}} })
	if _, err := sample(); err == nil {
		t.Error("a sample of nothing")
	}
	put("proc/meminfo", "MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable:  1024 kB\n")
	s, err := sample()
	if err != nil || s.PSI || s.MemoryTotal != 2*mib || s.MemoryAvailable != mib || len(s.Disks) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	put("proc/pressure/memory", "some avg10=9.00 avg60=9.00 avg300=9.00 total=9\nfull avg10=1.50 avg60=2.00 avg300=0.00 total=5\n")
	put("proc/pressure/io", "some avg10=9.00 avg60=9.00 avg300=9.00 total=9\nfull avg10=3.00 avg60=4.00 avg300=0.00 total=5\n")
	if s, err = sample(); err != nil || !s.PSI || s.MemoryFull != 0.015 || s.IOFull10 != 0.03 || s.IOFull60 != 0.04 {
		t.Errorf("%+v, %v", s, err)
	}
	put("proc/pressure/io", "monkeys\n")
	if _, err = sample(); err == nil || !strings.Contains(err.Error(), "proc/pressure/io: not what the kernel writes") {
		t.Error(err)
	}
	put("proc/meminfo", "MemTotal:  99999999999999999999 kB\nMemAvailable: -1 kB\n")
	if _, err = sample(); !errors.Is(err, errNone) {
		t.Error(err)
	}
}

// TestRealTriggers sets the kernel's triggers where it lets us, and ends.
func TestRealTriggers(t *testing.T) {
	wait, end, err := Triggers()
	if err != nil {
		t.Skipf("this kernel gives no triggers: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for wait(ctx) {
		}
	}()
	cancel()
	<-done
	end()
}

func FuzzStalls(f *testing.F) {
	f.Add("full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
	f.Add("some avg10=1\nfull avg10=NaN avg60=1e9\n")
	f.Fuzz(func(t *testing.T, text string) {
		if a, ok := parseFull(text); ok && !(a.full10 >= 0 && a.full10 <= 1 && a.full60 >= 0 && a.full60 <= 1) {
			t.Errorf("%+v", a)
		}
		if n, ok := kibibytes(text, "MemTotal:"); ok && n < 0 {
			t.Error(n)
		}
	})
}
