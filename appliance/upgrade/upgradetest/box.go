// SPDX-License-Identifier: Apache-2.0

package upgradetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/compose/release"
)

// Box is the world as the machine of one boot sees it: calls of a boot that is
// over are refused, as a process that was killed makes none.
type Box struct {
	*World
	boot, life int
}

var _ upgrade.Box = (*Box)(nil)

var errOver = errors.New("this boot is over")

func (b *Box) enter(name string) (func(), error) {
	b.mu.Lock()
	if b.life != b.World.life || b.ended == "force" {
		b.mu.Unlock()
		return nil, errOver
	}
	if err := b.fails(name); err != nil {
		b.mu.Unlock()
		return nil, err
	}
	return b.mu.Unlock, nil
}

// Record of the world.
func (b *Box) Record() (slot.Record, error) {
	leave, err := b.enter("Record")
	if err != nil {
		return slot.Record{}, err
	}
	defer leave()
	rec, err := b.load()
	return clone(rec), err
}

// SaveRecord writes two copies.
func (b *Box) SaveRecord(was, rec slot.Record) error {
	leave, err := b.enter("SaveRecord")
	if err != nil {
		return err
	}
	defer leave()
	if b.BeforeSave != nil {
		if now, err := b.load(); err == nil {
			if now = clone(now); b.BeforeSave(&now) {
				b.store(now)
			}
		}
	}
	if now, err := b.load(); err != nil || !reflect.DeepEqual(now, was) {
		return upgrade.ErrChanged
	}
	b.store(rec)
	return nil
}

// Root that runs.
func (b *Box) Root() (slot.Root, error) { return b.root, nil }

// BootID of this boot.
func (b *Box) BootID() string { return fmt.Sprintf("boot-%d", b.boot) }

// MachineID of the box.
func (b *Box) MachineID() string { return "machine" }

// Uptime by the test's clock.
func (b *Box) Uptime() time.Duration { return time.Since(b.booted) }

// Settings of the world.
func (b *Box) Settings() upgrade.Settings { return b.Set }

// Room of the world.
func (b *Box) Room(context.Context) (upgrade.Room, error) { return b.Has, nil }

// Running is the description of the stack that runs.
func (b *Box) Running() (release.Description, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec, err := b.load()
	if err != nil || b.stack == 0 {
		return release.Description{}, errors.New("nothing runs")
	}
	return b.describe(b.running(rec)), nil
}

// Targets of the source.
func (b *Box) Targets(_ context.Context, look upgrade.Look) ([]upgrade.Target, time.Time, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Unreachable {
		return nil, time.Time{}, &upgrade.Unreachable{Ref: look.Ref, Err: errors.New("no route")}
	}
	var out []upgrade.Target
	for _, v := range slices.Sorted(maps.Keys(b.Source)) {
		out = append(out, b.Source[v].Target)
	}
	return out, time.Now().Add(30 * 24 * time.Hour), nil
}

// Describe a target.
func (b *Box) Describe(_ context.Context, ref string, t upgrade.Target) (upgrade.Candidate, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.byDigest(t.Digest)
	if !ok {
		return upgrade.Candidate{}, fs.ErrNotExist
	}
	return upgrade.Candidate{Target: t, Ref: ref, Description: b.describe(r)}, nil
}

// Installed releases.
func (b *Box) Installed(_ context.Context, digest string) (release.Description, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.byDigest(digest)
	if !ok || !b.releases[digest] {
		return release.Description{}, fs.ErrNotExist
	}
	return b.describe(r), nil
}

// Prepare writes slot and release.
func (b *Box) Prepare(ctx context.Context, c upgrade.Candidate, where string, report func(upgrade.Progress)) (upgrade.Prepared, error) {
	leave, err := b.enter("Prepare")
	if err != nil {
		return upgrade.Prepared{}, err
	}
	if b.Unreachable {
		leave()
		return upgrade.Prepared{}, &upgrade.Unreachable{Ref: c.Ref, Err: errors.New("no route")}
	}
	slow := b.Slow
	leave()
	report(upgrade.Progress{Step: "fetching", Done: 1, Total: 2})
	if slow > 0 {
		select {
		case <-ctx.Done():
			return upgrade.Prepared{}, ctx.Err()
		case <-time.After(slow):
		}
	}
	if leave, err = b.enter(""); err != nil {
		return upgrade.Prepared{}, err
	}
	defer leave()
	rec, _ := b.load()
	if where != "" {
		if where == rec.Committed.Slot || rec.Kept != nil && rec.Kept.Slot == where {
			b.wrong("slot %s is written to while the record names it", where)
		}
		b.cut("before the slot")
		b.slots[where] = "half"
		b.cut("in the slot")
		b.slots[where] = c.Description.OS.RootHash
		b.cut("after the slot")
	}
	b.change("the release folder", func() { b.releases[c.Digest] = true })
	return upgrade.Prepared{Fetched: 100, Reused: 900}, nil
}

// CheckConfig refuses nothing.
func (b *Box) CheckConfig(context.Context, upgrade.Candidate) ([]upgrade.Refused, error) {
	return nil, nil
}

// Free removes what the record does not name.
func (b *Box) Free(_ context.Context, rec slot.Record, also []string) error {
	leave, err := b.enter("Free")
	if err != nil {
		return err
	}
	defer leave()
	named := append([]string{rec.Committed.Digest}, also...)
	if rec.Kept != nil {
		named = append(named, rec.Kept.Digest)
	}
	if rec.Trial != nil {
		named = append(named, rec.Trial.Digest)
	}
	for _, d := range slices.Sorted(maps.Keys(b.releases)) {
		if !slices.Contains(named, d) {
			b.change("freeing a release", func() { delete(b.releases, d) })
		}
	}
	return nil
}

// Report of the services.
func (b *Box) Report() (status.Report, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.traffic()
	return b.report, b.changed
}

// Latency is not measured.
func (b *Box) Latency() map[string]time.Duration { return nil }

// Evidence of a service.
func (b *Box) Evidence(_ context.Context, service string) []status.Evidence {
	return []status.Evidence{{What: "service " + service, Lines: []string{"no such table"}}}
}

// BootEvidence of a boot.
func (b *Box) BootEvidence(_ context.Context, boot string) []status.Evidence {
	return []status.Evidence{{What: "boot " + boot, Lines: []string{"panic"}}}
}

// Read, Write and Remove are the machine's files.
func (b *Box) Read(name string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(data), nil
}

// Write a file.
func (b *Box) Write(name string, data []byte) error {
	leave, err := b.enter("Write " + name)
	if err != nil {
		return err
	}
	defer leave()
	b.change("the file "+name, func() { b.files[name] = slices.Clone(data) })
	return nil
}

// Remove a file.
func (b *Box) Remove(name string) error {
	leave, err := b.enter("Remove " + name)
	if err != nil {
		return err
	}
	defer leave()
	b.change("removing the file "+name, func() { delete(b.files, name) })
	return nil
}
