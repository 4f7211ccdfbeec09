// SPDX-License-Identifier: Apache-2.0

package upgradetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/upgrade"
)

// firmware picks the image that boots, as systemd-boot does: those without
// tries last, then the newest; a counted one is renamed before it starts.
func (w *World) firmware() (upgrade.Entry, error) {
	var list []upgrade.Entry
	for _, e := range w.esp {
		if !e.Kept {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return upgrade.Entry{}, errors.New("nothing to boot")
	}
	slices.SortFunc(list, func(a, b upgrade.Entry) int {
		if a.Spent() != b.Spent() {
			if a.Spent() {
				return 1
			}
			return -1
		}
		return cmp.Compare(b.Number, a.Number)
	})
	e := list[0]
	if e.Left > 0 {
		w.change("the firmware's counting", func() {
			e.Left--
			e.Done++
			w.putEntry(e)
		})
	}
	return e, nil
}

// errDied is a boot that ends by itself before a daemon runs.
var errDied = errors.New("the boot died")

// Boot starts the machine: firmware, root, data, ingress, daemon. The boot
// that ran before is over. It gives the upgrade machine after Recover, and its
// box; errDied where no daemon came to run.
func (w *World) Boot(ctx context.Context) (m *upgrade.Machine, b *Box, err error) {
	w.mu.Lock()
	w.early = true
	w.boots++
	w.bootID = fmt.Sprintf("boot-%d", w.boots)
	w.booted = time.Now()
	w.mounted, w.open, w.stack, w.held, w.ended = "", false, 0, "", ""
	w.publish()
	err = func() error {
		defer w.mu.Unlock()
		e, err := w.firmware()
		if err != nil {
			return err
		}
		w.root = slot.Root{Hash: e.RootHash}
		for letter, hash := range w.slots {
			if hash == e.RootHash {
				w.root.Letter = letter
			}
		}
		if w.root.Letter == "" {
			return errors.New("the root that the firmware boots is in no slot")
		}
		return w.userspace()
	}()
	if err != nil {
		return nil, nil, err
	}
	m, b, err = w.Daemon(ctx)
	return m, b, err
}

// userspace is what runs before the daemon.
func (w *World) userspace() error {
	rec, err := w.load()
	if err != nil {
		return err
	}
	g, trial, foreign := slot.Choose(rec, w.root)
	how := Good
	if trial {
		r, _ := w.byDigest(g.Digest)
		how = r.Behaviour
	}
	if how == Panics {
		return errDied
	}
	if foreign != nil {
		return nil
	}
	if !trial {
		if _, ok := w.volumes[g.Data]; !ok {
			return fmt.Errorf("the committed data %s are gone", g.Data)
		}
		w.mounted, w.open = g.Data, true
		return nil
	}
	if how == NoData {
		return nil
	}
	t := *rec.Trial
	w.snapshot(&t)
	t.Boot, t.Again = w.bootID, false
	t.Starts++
	rec.Trial = &t
	w.store(rec)
	w.mounted = t.Data
	if how == Hangs || how == NoDaemon {
		return errDied
	}
	return nil
}

// Daemon starts the daemon, for the first time in this boot or again.
func (w *World) Daemon(ctx context.Context) (*upgrade.Machine, *Box, error) {
	w.early = false
	w.mu.Lock()
	w.life++
	b := &Box{World: w, boot: w.boots, life: w.life}
	w.mu.Unlock()
	m := upgrade.New(upgrade.Config{Box: b, Files: b})
	s, err := m.Recover(ctx)
	if err != nil {
		// The daemon holds. In a trial the deadline's timer reboots by force,
		// else an admin does.
		return m, b, fmt.Errorf("%w: %w", errDied, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case s.Rebooting:
	case s.Hold != nil:
		w.held = s.Hold.Text
		w.publish()
	default:
		if w.stack != 0 && w.stack != s.Generation.Number {
			w.wrong("generation %d is started while %d runs", s.Generation.Number, w.stack)
		}
		if err := w.start(s.Generation, s.Trial); err != nil {
			return m, b, err
		}
	}
	return m, b, nil
}

// Died says whether an error of Boot is a boot that ended by itself.
func Died(err error) bool { return errors.Is(err, errDied) }

// Ended says how the boot was ended, "" while it was not.
func (w *World) Ended() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

// Off is what a power cut or the end of a boot leaves: nothing of this boot
// runs on.
func (w *World) Off() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.life++
	w.stack, w.mounted, w.open = 0, "", false
}
