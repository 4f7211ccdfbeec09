// SPDX-License-Identifier: Apache-2.0

// Package upgrade takes a box from one release to another and back. It is a
// state machine over the generation record: observe (the record, the running
// root, the boot, the ESP), decide (pure), act (through Box). The record is
// the only commit point; whatever comes after it is redone at each start. The
// package does nothing to the world but through Box and a few files of its own
// in Config.Files, and it never runs two things at once.
package upgrade

import (
	"fmt"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

// Config of a machine.
type Config struct {
	Box Box
	// Files keeps the machine's own files; Folder("/var/lib/holdfast/upgrade")
	// on a box.
	Files Files
	// Now is the clock; nil for time.Now.
	Now func() time.Time
	// Say writes one line for the journal and the console; nil for none.
	Say func(line string)
	// Changed is called after Status or Conditions may have changed, without
	// a lock held; nil for none.
	Changed func()
}

// Machine is the one that upgrades a box. Its methods may be called from
// several goroutines; Recover comes first, then Run, once each.
type Machine struct {
	c Config
	// kick wakes Run.
	kick chan struct{}
	// asking is held while something is asked for, so that of two requests one
	// sees the other; trusting while a source is asked.
	asking, trusting sync.Mutex
	// recording is held from the decision about a trial to the record that says
	// so: an orderly shutdown and a commit exclude each other.
	recording sync.Mutex

	mu        sync.Mutex
	live      status.Upgrade
	req       *request
	history   History
	known     known
	rec       slot.Record   // as last read or written
	why       Verdict       // of the gate, while a trial runs
	unsettled string        // what of a commit is still to be done, "" for nothing
	settleDue bool          // what follows a commit is to be done again
	mendDue   bool          // what Recover could not do is to be tried again
	ended     chan struct{} // closed and made anew with each row
	cancel    func()        // ends a preparation
	stopped   bool          // an orderly shutdown has begun
	abandoned int           // the rollback that an admin gives up, 0 for none

	// Of Run alone, and Recover before it.
	rebooting string // why, once a reboot was begun
	startDue  bool   // the committed generation's services are to be started here
	restored  int    // generation whose row waits for the time without service
	retryAt   time.Time
	retries   int
}

// New prepares a machine; nothing is read or done before Recover.
func New(c Config) *Machine {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Say == nil {
		c.Say = func(string) {}
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	return &Machine{c: c, kick: make(chan struct{}, 1), ended: make(chan struct{}), live: status.Upgrade{State: "idle"}}
}

// Start is what the daemon shall run now.
type Start struct {
	// Generation to run, and whether it is a trial: ingress stays closed and
	// external services wait.
	Generation slot.Generation
	Trial      bool
	// Hold is why nothing may be started, nil else.
	Hold *status.Condition
	// Rebooting is true where a reboot was begun: nothing is started either.
	Rebooting bool
}

// Ask is what is asked of an upgrade.
type Ask struct {
	// Ref of a depot, "" for the settings' source. Version of the release
	// there, "" for the newest one allowed.
	Ref     string `json:"ref,omitempty"`
	Version string `json:"version,omitempty"`
	// DownloadOnly prepares and then waits for another Ask.
	DownloadOnly bool `json:"download_only,omitempty"`
	// At is a maintenance window to switch in ("Sun 02:00-04:00", "window" for
	// the settings' own), "" for at once.
	At string `json:"at,omitempty"`
	// Keep goes on keeping the generation that is kept now, in the place of
	// the one that is left; it is refused where that one would be given up.
	Keep bool `json:"keep,omitempty"`
	// Force takes a quarantined release. It waives no other check.
	Force         bool `json:"force,omitempty"`
	AcceptExpired bool `json:"accept_expired,omitempty"`
	// Auto is true for one that nobody asked for.
	Auto bool `json:"auto,omitempty"`
}

// Back is what is asked of a rollback.
type Back struct {
	// To is the generation to go back to, 0 for the kept one.
	To int `json:"to,omitempty"`
	// KeepData goes on with the data of now instead of the kept ones.
	KeepData bool `json:"keep_data,omitempty"`
}

// Checked is the answer of a check.
type Checked struct {
	// Candidate that would be installed, nil for none: Current says that the
	// box has the newest one.
	Candidate *Candidate `json:"candidate,omitempty"`
	Current   bool       `json:"current"`
	// From and To for people, "NAME VERSION".
	From string `json:"from"`
	To   string `json:"to,omitempty"`
	// Reboot is true where another root is booted.
	Reboot bool `json:"reboot"`
	// Refused are the reasons it would not be done, none if it would.
	Refused []Refused `json:"refused,omitempty"`
	// Plan is what would be done, one line a step.
	Plan []string `json:"plan,omitempty"`
	// Notes for people, e.g. that the kept generation would be given up.
	Notes []string `json:"notes,omitempty"`
}

func (m *Machine) say(format string, args ...any) { m.c.Say(fmt.Sprintf(format, args...)) }

// wake lets Run look again.
func (m *Machine) wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// record reads the record and remembers it for Status.
func (m *Machine) record() (slot.Record, error) {
	rec, err := m.c.Box.Record()
	if err != nil {
		return rec, err
	}
	m.seen(rec)
	return rec, nil
}

// save writes the record in the place of was: the only commit point.
func (m *Machine) save(was, rec slot.Record) error {
	if err := m.c.Box.SaveRecord(was, rec); err != nil {
		return fmt.Errorf("the generation record: %w", err)
	}
	m.seen(rec)
	return nil
}

func (m *Machine) seen(rec slot.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rec = rec
}

// edit changes what Status says, and tells.
func (m *Machine) edit(change func(*status.Upgrade)) {
	m.mu.Lock()
	change(&m.live)
	m.mu.Unlock()
	m.c.Changed()
}

// Status is the upgrade part of the report.
func (m *Machine) Status() status.Upgrade {
	set, up := m.c.Box.Settings(), m.c.Box.Uptime()
	m.mu.Lock()
	rec := m.rec
	m.mu.Unlock()
	runs := m.trialRuns(rec)
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.live
	u.Channel, u.Source = channelOf(set), set.Source
	u.Checked, u.Available = m.known.Checked, m.known.Available
	if m.rec.Kept != nil {
		u.Kept, u.KeptGeneration = m.rec.Kept.Release, m.rec.Kept.Number
	}
	if r := m.req; r != nil {
		u.Kind, u.Target, u.Digest = r.Kind, r.To, r.digest()
	}
	if t := rec.Trial; runs {
		u.Trial = true
		u.Deadline = m.c.Now().Add(deadlineOf(t) - up).UTC().Round(time.Second)
		u.Kind = t.Kind
	}
	u.Last = m.history.last()
	return u
}

func channelOf(s Settings) string {
	if s.Channel == "" {
		return defaultChannel
	}
	return s.Channel
}

// deadlineOf is a trial's as uptime.
func deadlineOf(t *slot.Trial) time.Duration {
	d := time.Duration(t.Deadline) * time.Second
	if d <= 0 {
		d = defaultDeadline
	}
	if !t.Reboot {
		d += time.Duration(t.Since) * time.Second
	}
	return d
}

func windowOf(t *slot.Trial) time.Duration {
	if t.Window <= 0 {
		return defaultWindow
	}
	return time.Duration(t.Window) * time.Second
}
