// SPDX-License-Identifier: Apache-2.0

package pressure

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

const (
	// every is the time between samples while nothing is short, and soon while
	// something is or may be.
	every = 5 * time.Second
	soon  = time.Second
)

// Config of a Watcher.
type Config struct {
	// Sample looks at the machine; Machine gives the real one.
	Sample func() (Sample, error)
	// Trigger waits until the kernel reports a stall or ctx ends, and answers
	// false where it can't: samples at fixed times must do then. Triggers gives
	// the real one; may be nil.
	Trigger func(ctx context.Context) bool
	// Wake is called after each change of State; may be nil.
	Wake func()
}

// Watcher keeps the State of a machine.
type Watcher struct {
	c Config

	mu    sync.Mutex
	memo  Memo
	state State
	psi   bool
	seen  bool
	err   error
}

// New makes a Watcher that has seen nothing: its Level is None, from now on.
func New(c Config) *Watcher {
	return &Watcher{c: c, state: State{Level: None, Since: time.Now()}}
}

// State is the last one.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Conditions are what an admin should know: what is short, and what can't be
// seen on this machine.
func (w *Watcher) Conditions() []status.Condition {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []status.Condition
	if w.state.Level != None {
		severity := "warning"
		if w.state.Level == High {
			severity = "critical"
		}
		list = append(list, status.Condition{Code: w.state.Resource + "-pressure", Severity: severity, Text: w.state.Text, Remedy: remedies[w.state.Resource]})
	}
	switch {
	case w.err != nil:
		list = append(list, status.Condition{
			Code: "pressure-unknown", Severity: "warning", Text: "pressure can't be measured: " + w.err.Error(),
			Remedy: "look at /proc/meminfo and /proc/pressure; without them no service is stopped when memory or disks run short",
		})
	case w.seen && !w.psi:
		list = append(list, status.Condition{
			Code: "pressure-without-psi", Severity: "info", Text: "the kernel reports no pressure (PSI): only available memory and free room count",
			Remedy: "nothing, or boot with psi=1 on a kernel that has it",
		})
	}
	return list
}

var remedies = map[string]string{
	Memory: "holdfast top shows who uses it; give the machine more memory, or the stack a smaller size",
	Disk:   "holdfast top shows who fills it; remove what is not needed, or enlarge the disk and reboot",
	IO:     "holdfast top shows who reads and writes; give the machine a faster disk",
}

// Run samples until ctx ends, which is its error.
func (w *Watcher) Run(ctx context.Context) error {
	stalls := make(chan struct{}, 1)
	var wait sync.WaitGroup
	defer wait.Wait()
	if w.c.Trigger != nil {
		wait.Go(func() {
			for w.c.Trigger(ctx) {
				select {
				case stalls <- struct{}{}:
				default:
				}
			}
		})
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-stalls:
		}
		next := every
		if w.look() {
			next = soon
		}
		timer.Reset(next)
	}
}

// look takes one sample; it is true where the next one should come soon.
func (w *Watcher) look() bool {
	s, err := w.c.Sample()
	w.mu.Lock()
	before, failed := w.state, w.err != nil
	if w.err = err; err == nil {
		w.seen, w.psi = true, s.PSI
		w.memo, w.state = Decide(w.memo, s)
	}
	after := w.state
	w.mu.Unlock()
	if w.c.Wake != nil && (before.Level != after.Level || before.Resource != after.Resource || failed != (err != nil)) {
		w.c.Wake()
	}
	return after.Level != None
}

// errNone is for a machine that can't be sampled at all.
var errNone = errors.New("no MemTotal and MemAvailable in /proc/meminfo")
