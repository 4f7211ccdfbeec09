// SPDX-License-Identifier: Apache-2.0

package upgradetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
)

// mostBoots bounds how often a world may boot before it rests.
const mostBoots = 12

// mostTime bounds one boot, by the test's clock.
const mostTime = 2 * time.Hour

// Play boots the world, lets act ask for something in the first boot, and goes
// on through reboots and cuts until it rests: nothing is on its way and the
// stack is healthy. It is for use in a synctest bubble.
func (w *World) Play(act func(context.Context, *upgrade.Machine) error) error {
	for range mostBoots {
		again, err := w.PlayBoot(act)
		if err != nil {
			return err
		}
		if !again {
			return nil
		}
		act = nil
	}
	return fmt.Errorf("no rest after %d boots", mostBoots)
}

// PlayBoot is one boot of Play; again says that it has ended and another
// follows.
func (w *World) PlayBoot(act func(context.Context, *upgrade.Machine) error) (again bool, err error) {
	defer w.Off()
	began := time.Now()
	run := w.Boot
	for {
		ended, cut, err := w.playDaemon(run, act, began)
		switch {
		case err != nil && Died(err):
			return true, nil
		case err != nil:
			return false, err
		case cut && w.Kill && w.CutAt > 0 && !w.early:
			// A daemon that is started again in the same boot: what runs, runs
			// on.
			w.CutAt, run, act = 0, w.Daemon, nil
			continue
		}
		return ended || cut, nil
	}
}

// playDaemon is one life of the daemon. ended says that the boot has ended,
// cut that the daemon has; neither that the world rests.
func (w *World) playDaemon(run func(context.Context) (*upgrade.Machine, *Box, error), act func(context.Context, *upgrade.Machine) error, began time.Time) (ended, cut bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			if _, is := r.(PowerCut); !is {
				panic(r)
			}
			ended, cut, err = false, true, nil
		}
	}()
	m, _, err := run(ctx)
	if err != nil {
		return false, false, err
	}
	done := make(chan any, 1)
	go func() {
		defer func() { done <- recover() }()
		m.Run(ctx)
	}()
	defer func() {
		w.mu.Lock()
		w.life++ // whatever Run does from here on is refused
		w.mu.Unlock()
		cancel()
		synctest.Wait()
	}()
	step := 10 * time.Second
	if w.RebootWhen != nil {
		step = time.Second
	}
	for time.Since(began) < mostTime {
		synctest.Wait()
		select {
		case r := <-done:
			if _, is := r.(PowerCut); is {
				return false, true, nil
			}
			if r != nil {
				panic(r)
			}
			return false, false, errors.New("Run has returned")
		default:
		}
		if w.Ended() != "" {
			if w.Ended() == "reboot" {
				w.shutdown(ctx, m)
			}
			return true, false, nil
		}
		if w.late() {
			return true, false, nil
		}
		rep, _ := w.reportNow()
		u := m.Status()
		if w.RebootWhen != nil && w.RebootWhen(u) {
			w.RebootWhen = nil
			w.shutdown(ctx, m)
			return true, false, nil
		}
		if act != nil && rep == "healthy" {
			if err := act(ctx, m); err != nil {
				return false, false, err
			}
			act = nil
			continue
		}
		if time.Since(began) < w.Stay {
			Pass(step)
			continue
		}
		if act == nil && u.State == "idle" && u.Kind == "" && !u.Trial && rep == "healthy" && !has(m, upgrade.CondUnsettled) {
			return false, false, nil
		}
		if u.State == "held" && w.OnHeld != nil {
			held := w.OnHeld
			w.OnHeld = nil
			if err := held(ctx, m); err != nil {
				return false, false, err
			}
			continue
		}
		if act == nil && (u.State == "ready" || u.State == "held") {
			return false, false, nil
		}
		Pass(step)
	}
	return false, false, fmt.Errorf("no rest after %s: %+v, %v", mostTime, m.Status(), m.Conditions())
}

func has(m *upgrade.Machine, code string) bool {
	for _, c := range m.Conditions() {
		if c.Code == code {
			return true
		}
	}
	return false
}

func (w *World) reportNow() (string, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.traffic()
	return w.report.Stack, w.report.Generation
}

// shutdown is what an orderly one does before the end.
func (w *World) shutdown(ctx context.Context, m *upgrade.Machine) {
	if err := m.Interrupt(ctx); err != nil && !errors.Is(err, ErrFails) {
		w.wrong("the shutdown: %v", err)
	}
}

// late is the deadline's timer, which reboots by force.
func (w *World) late() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec, err := w.load()
	if err != nil || rec.Trial == nil || rec.Trial.Boot != w.bootID || rec.Trial.Kind == slot.Rollback {
		return false
	}
	limit := time.Duration(rec.Trial.Deadline+rec.Trial.Since)*time.Second + 3*time.Minute
	return time.Since(w.booted) > limit
}

// Committed is the release that is, "NAME VERSION".
func (w *World) Committed() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec, err := w.load()
	if err != nil {
		return err.Error()
	}
	return rec.Committed.Release
}

// Record of the world.
func (w *World) Record() slot.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec, _ := w.load()
	return clone(rec)
}

// Data is the committed volume.
func (w *World) Data() Volume {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec, _ := w.load()
	if v, ok := w.volumes[rec.Committed.Data]; ok {
		return Volume{v.Schema, slices.Clone(v.Writes)}
	}
	return Volume{}
}

// Acked are the writes that users were told are done.
func (w *World) Acked() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acked)
}

// Check gives all that is wrong with a world that rests.
func (w *World) Check() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := slices.Clone(w.Wrong)
	bad := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	rec, err := w.load()
	if err != nil {
		return append(out, err.Error())
	}
	c := rec.Committed
	if rec.Trial != nil {
		bad("a trial is left: %+v", *rec.Trial)
	}
	if w.root.Hash != c.RootHash || w.root.Letter != c.Slot || w.slots[c.Slot] != c.RootHash {
		bad("the root that runs is %s in %s, not the committed one", w.root.Hash, w.root.Letter)
	}
	ours := c.UKI
	if ours == 0 {
		ours = c.Number
	}
	kept := 0
	if rec.Kept != nil {
		if kept = rec.Kept.UKI; kept == 0 {
			kept = rec.Kept.Number
		}
		if w.volumes[rec.Kept.Data] == nil {
			bad("the kept data %s are gone", rec.Kept.Data)
		}
		if !w.releases[rec.Kept.Digest] {
			bad("the kept release is gone")
		}
		if w.slots[rec.Kept.Slot] != rec.Kept.RootHash {
			bad("the kept slot holds %s", w.slots[rec.Kept.Slot])
		}
	}
	for _, e := range w.esp {
		switch {
		case !e.Kept && e.Number == ours && !e.Counted() && e.RootHash == c.RootHash:
		case e.Kept && e.Number == kept && e.RootHash == rec.Kept.RootHash:
		default:
			bad("the ESP has %+v", e)
		}
	}
	if _, ok := w.esp[key(upgrade.Entry{Number: ours})]; !ok {
		bad("the ESP lacks the committed image")
	}
	if kept != 0 && kept != ours {
		if _, ok := w.esp[key(upgrade.Entry{Number: kept, Kept: true})]; !ok {
			bad("the ESP lacks the kept image")
		}
	}
	for v := range w.volumes {
		if v != c.Data && (rec.Kept == nil || v != rec.Kept.Data) {
			bad("volume %s is left", v)
		}
	}
	if w.label != c.Data {
		bad("the label says %q, and %s is committed", w.label, c.Data)
	}
	if w.Back == 0 && w.loader != c.Digest {
		bad("the boot loader is another release's")
	}
	return out
}

// Pass lets time pass by the test's clock: no process waits for it.
func Pass(d time.Duration) { <-time.NewTimer(d).C }

// Do changes what is around the box while it runs.
func (w *World) Do(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// Last is the newest row of the history.
func (w *World) Last() status.UpgradeResult {
	w.mu.Lock()
	defer w.mu.Unlock()
	var h upgrade.History
	if err := json.Unmarshal(w.files["history.json"], &h); err != nil || len(h.Rows) == 0 {
		return status.UpgradeResult{}
	}
	return h.Rows[len(h.Rows)-1]
}
