// SPDX-License-Identifier: Apache-2.0

// Package upgradetest is a model of a box: its disk, its firmware, the boot,
// the services and the users, as far as upgrades touch them. It is made to be
// cut off anywhere: every change has a place before, after and, for durable
// writes of two copies, in the middle. It watches two things by itself: that
// nobody gets in while a trial runs, and that no one writes to data that are
// not his.
package upgradetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/compose/release"
)

// Behaviour is how a release does.
type Behaviour string

// Behaviours.
const (
	Good Behaviour = ""
	// Sick has a service that never gets healthy.
	Sick Behaviour = "sick"
	// Panics before anything is mounted.
	Panics Behaviour = "panics"
	// Hangs once its data are there; the watchdog resets it.
	Hangs Behaviour = "hangs"
	// NoDaemon has a supervisor that never gets so far; the deadline's timer
	// reboots by force.
	NoDaemon Behaviour = "no daemon"
	// NoData cannot mount its state or data.
	NoData Behaviour = "no data"
)

// Release is one that the source has.
type Release struct {
	upgrade.Target
	Root      string
	Behaviour Behaviour
	Readable  string
}

// PowerCut is what a cut panics with.
type PowerCut struct{ Place string }

// ErrFails is a call that Fail makes fail.
var ErrFails = errors.New("fails")

// Volume of data.
type Volume struct {
	// Schema is the version that migrated it last, Writes of users in it.
	Schema string
	Writes []int
}

type copyOf struct {
	seq  int
	rec  slot.Record
	torn bool
}

// World is a box with what is around it. What a power cut leaves is in its
// first half.
type World struct {
	mu sync.Mutex

	// On disk.
	copies   [2]copyOf
	files    map[string][]byte
	esp      map[string]upgrade.Entry
	slots    map[string]string // root hash by letter
	volumes  map[string]*Volume
	label    string
	releases map[string]bool // by digest
	loader   string

	// Of this boot.
	boots   int
	life    int // of the daemon: calls of one that is gone are refused
	bootID  string
	booted  time.Time
	root    slot.Root
	mounted string
	open    bool
	stack   int // generation that runs, 0 for none
	since   time.Time
	held    string
	waiting bool // external services wait
	report  status.Report
	changed chan struct{}
	early   bool   // no daemon yet
	ended   string // why the boot ended: "reboot", "force"

	// Around it.
	Source map[string]Release
	Set    upgrade.Settings
	Has    upgrade.Room
	acked  []int
	// CutAt is the place, counted from 1, that the power is cut at; 0 never.
	CutAt int
	// Kill makes that a daemon that is killed and started again, in a boot
	// that goes on.
	Kill bool
	// Places are those passed.
	Places []string
	// Wrong are the properties that did not hold.
	Wrong []string
	// RebootWhen is asked until it says that somebody reboots the box in an
	// orderly way.
	RebootWhen func(status.Upgrade) bool
	// OnHeld is called once a rollback is held; nil leaves it there.
	OnHeld func(context.Context, *upgrade.Machine) error
	// BeforeSave is called before each write of the record; nil for nothing.
	BeforeSave func(*slot.Record) (changed bool)
	// Unreachable source; Slow is how long a preparation takes.
	Unreachable bool
	// Stay is how long a boot lasts at least before it is left at rest.
	Stay time.Duration
	// Back is above 0 where a rollback by hand has left a newer boot loader.
	Back int
	Slow time.Duration
	// Fail makes a box call fail, by its name, that many times.
	Fail map[string]int
}

// Digest of a version in this world.
func Digest(version string) string {
	return "sha256:" + strings.Repeat("0", 64-len(hexOf(version))) + hexOf(version)
}

func hexOf(s string) string { return fmt.Sprintf("%x", s) }

// Hash is a root hash.
func Hash(os string) string { return strings.Repeat("0", 64-len(hexOf(os))) + hexOf(os) }

// New is a box that runs version 1.0.0 with root "one" in slot A.
func New() *World {
	w := &World{
		files: map[string][]byte{}, esp: map[string]upgrade.Entry{}, slots: map[string]string{"A": Hash("one")},
		volumes: map[string]*Volume{"data-1": {Schema: "1.0.0"}}, label: "data-1", releases: map[string]bool{Digest("1.0.0"): true},
		loader: Digest("1.0.0"), Source: map[string]Release{}, changed: make(chan struct{}), Fail: map[string]int{},
		Has: upgrade.Room{Memory: 8 << 30, CPUs: 4000, Data: 100 << 30, State: 20 << 30, Pool: 100 << 30, Slot: 1 << 30, ESP: 200 << 20},
	}
	rec := slot.First(slot.Root{Letter: "A", Hash: Hash("one")})
	rec.Committed.Release, rec.Committed.Digest = "demo 1.0.0", Digest("1.0.0")
	w.copies = [2]copyOf{{1, rec, false}, {1, rec, false}}
	w.putEntry(upgrade.Entry{Number: 1, Left: -1, Done: -1, RootHash: Hash("one")})
	w.Add("1.0.0", "one", Good)
	w.Set = upgrade.Settings{Source: "folder", Channel: "stable"}
	return w
}

// Add puts a release into the source.
func (w *World) Add(version, os string, b Behaviour) {
	w.Source[version] = Release{Root: Hash(os), Behaviour: b, Readable: version,
		Target: upgrade.Target{Name: "demo", Version: version, Digest: Digest(version), Channels: []string{"stable"}, Rollout: 100}}
}

func (w *World) byDigest(digest string) (Release, bool) {
	for _, r := range w.Source {
		if r.Digest == digest {
			return r, true
		}
	}
	return Release{}, false
}

func (w *World) describe(r Release) release.Description {
	return release.Description{Format: 1, Name: r.Name, Version: r.Version, OS: release.OS{Version: r.Root[:8], RootHash: r.Root},
		Data: release.Data{ReadableFrom: r.Readable}, Epoch: r.Epoch, Engine: "docker-1",
		Parts:  &release.Parts{UKI: release.PartBlob{Digest: "uki " + r.Root, Size: 30 << 20}, Boot: release.PartBlob{Size: 1 << 17}},
		Verity: &release.Verity{Bytes: 300 << 20}, Gate: release.Gate{Deadline: 300, Window: 10}}
}

// cut is a place at which the power may be cut.
func (w *World) cut(format string, args ...any) {
	w.traffic()
	w.Places = append(w.Places, fmt.Sprintf(format, args...))
	if len(w.Places) == w.CutAt {
		panic(PowerCut{w.Places[len(w.Places)-1]})
	}
}

// change is one change of the disk that a cut finds done or not done.
func (w *World) change(what string, do func()) {
	w.cut("before %s", what)
	do()
	w.cut("after %s", what)
}

func (w *World) wrong(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if !slices.Contains(w.Wrong, s) {
		w.Wrong = append(w.Wrong, s)
	}
}

// fails says whether a call is to fail now.
func (w *World) fails(name string) error {
	if w.Fail[name] > 0 {
		w.Fail[name]--
		return fmt.Errorf("%s %w", name, ErrFails)
	}
	return nil
}

// traffic is a user who writes whenever he gets in, and services that write
// whenever they run.
func (w *World) traffic() {
	rec, err := w.load()
	if err != nil {
		return
	}
	if w.stack != 0 {
		g := rec.Committed
		if t := rec.Trial; t != nil && t.Number == w.stack {
			g = t.Generation
		} else if g.Number != w.stack {
			// It has just been rolled back in the record.
			g = slot.Generation{}
		}
		if g.Number != 0 && w.mounted != g.Data {
			w.wrong("generation %d runs on %q, not on %s", g.Number, w.mounted, g.Data)
		}
	}
	if !w.open {
		return
	}
	if w.stack != 0 && w.stack != rec.Committed.Number {
		w.wrong("ingress is open while generation %d runs and %d is committed", w.stack, rec.Committed.Number)
	}
	if w.stack == 0 || w.mounted == "" || !w.healthy() {
		return
	}
	n := len(w.acked) + 1
	w.acked = append(w.acked, n)
	w.volumes[w.mounted].Writes = append(w.volumes[w.mounted].Writes, n)
}

func (w *World) load() (slot.Record, error) {
	best := -1
	for i, c := range w.copies {
		if !c.torn && (best < 0 || c.seq > w.copies[best].seq) {
			best = i
		}
	}
	if best < 0 {
		return slot.Record{}, fmt.Errorf("both copies of the record are torn")
	}
	return w.copies[best].rec, nil
}

func (w *World) store(rec slot.Record) {
	if b, err := json.Marshal(rec); err != nil {
		w.wrong("the record: %v", err)
	} else if _, err := slot.Parse(b); err != nil {
		w.wrong("the record: %v", err)
	}
	// Over the older one, in place, as images/durable does: until it is whole
	// the newer one counts.
	i := 0
	if w.copies[1].torn || !w.copies[0].torn && w.copies[1].seq < w.copies[0].seq {
		i = 1
	}
	seq := max(w.copies[0].seq, w.copies[1].seq) + 1
	w.cut("before the record")
	w.copies[i].torn = true
	w.cut("in the record")
	w.copies[i] = copyOf{seq: seq, rec: clone(rec)}
	w.cut("after the record")
}

func clone(rec slot.Record) slot.Record {
	if rec.Kept != nil {
		k := *rec.Kept
		rec.Kept = &k
	}
	if rec.Trial != nil {
		t := *rec.Trial
		rec.Trial = &t
	}
	rec.Quarantined = slices.Clone(rec.Quarantined)
	return rec
}

func key(e upgrade.Entry) string { return fmt.Sprintf("%v/%d", e.Kept, e.Number) }

func (w *World) putEntry(e upgrade.Entry) { w.esp[key(e)] = e }

// now is the world's own clock: the test's.
func (w *World) healthy() bool {
	if w.stack == 0 || w.held != "" {
		return false
	}
	rec, err := w.load()
	if err != nil {
		return false
	}
	r := w.running(rec)
	return r.Behaviour != Sick && time.Since(w.since) >= 5*time.Second
}

// running is the release of the stack that runs.
func (w *World) running(rec slot.Record) Release {
	g := rec.Committed
	if rec.Trial != nil && rec.Trial.Number == w.stack {
		g = rec.Trial.Generation
	}
	r, _ := w.byDigest(g.Digest)
	return r
}

// Entries by name, for a test's message.
func (w *World) ESP() string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(w.esp)) {
		e := w.esp[k]
		out = append(out, fmt.Sprintf("%d kept=%v left=%d", e.Number, e.Kept, e.Left))
	}
	return strings.Join(out, "; ")
}
