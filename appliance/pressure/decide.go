// SPDX-License-Identifier: Apache-2.0

// Package pressure says whether a machine runs short: of memory, of room on a
// disk, of a disk's time. It samples the kernel's pressure stall information
// (PSI), available memory and free room, and is woken by PSI triggers between
// samples. What follows from a sample is decided by a pure function.
//
// It refuses to call a busy processor pressure: processors are shared by
// weight, and stopping a service for it would mend nothing that weights do not.
// Nor does a service that fights its own memory limit count, which PSI alone
// would show: memory must be short on the machine too.
package pressure

import (
	"fmt"
	"time"
)

// Levels of pressure.
const (
	None = "none"
	Warn = "warn"
	High = "high"
)

// Resources under pressure.
const (
	Memory = "memory"
	Disk   = "disk"
	IO     = "io"
)

// State is what a machine is short of, the worst first: memory, disk, io.
type State struct {
	// Level is None, Warn or High.
	Level string
	// Resource is Memory, Disk or IO, "" while Level is None.
	Resource string
	// Text is a sentence with the numbers, "" while Level is None.
	Text string
	// Since is when this level of this resource was entered.
	Since time.Time
}

// Sample is what is known of the machine at one moment. Sizes are in bytes,
// shares of time from 0 to 1.
type Sample struct {
	Time time.Time
	// MemoryTotal and MemoryAvailable are /proc/meminfo's.
	MemoryTotal, MemoryAvailable int64
	// PSI is false where the kernel has none; the shares are 0 then.
	PSI bool
	// MemoryFull is memory's "full avg10": all tasks waited for memory.
	MemoryFull float64
	// IOFull10 and IOFull60 are io's "full avg10" and "full avg60".
	IOFull10, IOFull60 float64
	Disks              []Room
}

// Room on one disk, or in one quota.
type Room struct {
	Name        string
	Free, Total int64
}

const (
	mib = int64(1) << 20
	gib = int64(1) << 30

	// rise is how long what calls for High must last: a burst is none.
	rise = 2 * time.Second
	// calm is how long it must be better before a level is left.
	calm = 10 * time.Second

	// stalled is the share of time in which nothing went on for want of
	// memory that counts as thrashing, where memory is short too.
	stalled = 0.10
	// busyDisk and jammedDisk are shares of time in which nothing went on
	// because of disks. The first is of 10 s, the second of 60 s: loading an
	// image keeps a disk busy for that long and is no reason to stop anything.
	busyDisk   = 0.60
	jammedDisk = 0.80
)

// memoryMark is how much memory must be available at least: 4 % of the
// machine, from 64 MiB to 1 GiB. Below it the level is High, below twice as
// much Warn. The system's reserve is larger, so services that keep to their
// budgets do not get there.
func memoryMark(total int64) int64 { return min(max(total/25, 64*mib), gib) }

// diskMark is the room a disk must have: a fortieth, at most 2 GiB. Below it
// the level is High, below twice as much Warn. Volumes that are all as full as
// their budgets allow leave more than that (compose/budget's DataReserve, less
// the ballast).
func diskMark(total int64) int64 { return min(total/40, 2*gib) }

type level int

const (
	none level = iota
	warn
	high
)

func (l level) String() string { return [...]string{None, Warn, High}[l] }

// track is one resource's level with its hysteresis.
type track struct {
	level           level
	since           time.Time
	text            string
	rising, falling time.Time
}

// Memo is what a decision remembers for the next one; the zero value is a
// machine that nothing is known of.
type Memo struct {
	memory, disk, io track
}

// Decide gives the state that follows from a sample.
func Decide(m Memo, s Sample) (Memo, State) {
	up, down, text := memory(s)
	m.memory = m.memory.step(up, down, text, s.Time)
	up, down, text = disk(s)
	m.disk = m.disk.step(up, down, text, s.Time)
	up, down, text = ioTime(s)
	m.io = m.io.step(up, down, text, s.Time)
	worst, name := m.memory, Memory
	if m.disk.level > worst.level {
		worst, name = m.disk, Disk
	}
	if m.io.level > worst.level {
		worst, name = m.io, IO
	}
	if worst.level == none {
		since := m.memory.since
		for _, t := range []track{m.disk, m.io} {
			if t.since.After(since) {
				since = t.since
			}
		}
		return m, State{Level: None, Since: since}
	}
	return m, State{Level: worst.level.String(), Resource: name, Text: worst.text, Since: worst.since}
}

// step moves a level. up is what the sample calls for; down, never below up,
// is what it would take to stay.
func (t track) step(up, down level, text string, now time.Time) track {
	if t.since.IsZero() {
		t.since = now
	}
	if up > none {
		t.text = text
	}
	if up > t.level {
		t.falling = time.Time{}
		if t.rising.IsZero() {
			t.rising = now
		}
		to := up
		if up == high && now.Sub(t.rising) < rise {
			to = warn
		}
		if to > t.level {
			t.level, t.since = to, now
		}
		return t
	}
	t.rising = time.Time{}
	if down >= t.level {
		t.falling = time.Time{}
		return t
	}
	if t.falling.IsZero() {
		t.falling = now
	}
	if now.Sub(t.falling) >= calm {
		t.level, t.since, t.falling = down, now, time.Time{}
	}
	return t
}

// by gives the levels of an amount that must not get small: the entry marks,
// and for leaving a quarter more.
func by(free, markHigh, markWarn int64) (up, down level) {
	at := func(free int64) level {
		switch {
		case free < markHigh:
			return high
		case free < markWarn:
			return warn
		}
		return none
	}
	return at(free), at(free - free/5)
}

func memory(s Sample) (up, down level, text string) {
	if s.MemoryTotal <= 0 {
		return none, none, ""
	}
	mark := memoryMark(s.MemoryTotal)
	up, down = by(s.MemoryAvailable, mark, 2*mark)
	text = fmt.Sprintf("%s of %s memory are available, less than %s", size(s.MemoryAvailable), size(s.MemoryTotal), size(2*mark))
	if up == high {
		text = fmt.Sprintf("%s of %s memory are available, less than %s", size(s.MemoryAvailable), size(s.MemoryTotal), size(mark))
	}
	if short := s.MemoryAvailable < 4*mark; s.PSI && short && s.MemoryFull >= stalled {
		if up < high {
			text = fmt.Sprintf("for %.0f %% of the time nothing went on for want of memory, %s are available", 100*s.MemoryFull, size(s.MemoryAvailable))
		}
		return high, high, text
	} else if s.PSI && short && s.MemoryFull >= stalled/2 {
		down = max(down, high)
	}
	return up, down, text
}

func disk(s Sample) (up, down level, text string) {
	for _, d := range s.Disks {
		if d.Total <= 0 {
			continue
		}
		mark := diskMark(d.Total)
		u, w := by(d.Free, mark, 2*mark)
		if u > up || text == "" {
			text = fmt.Sprintf("%s has %s of %s left", d.Name, size(d.Free), size(d.Total))
		}
		up, down = max(up, u), max(down, w)
	}
	return up, down, text
}

func ioTime(s Sample) (up, down level, text string) {
	if !s.PSI {
		return none, none, ""
	}
	text = fmt.Sprintf("for %.0f %% of the time nothing went on because of disks", 100*max(s.IOFull10, s.IOFull60))
	switch {
	case s.IOFull60 >= jammedDisk && s.IOFull10 >= busyDisk:
		return high, high, text
	case s.IOFull10 >= busyDisk:
		up = warn
	}
	down = up
	if s.IOFull10 >= busyDisk/2 {
		down = max(down, warn)
		if s.IOFull60 >= jammedDisk/2 {
			down = high
		}
	}
	return up, down, text
}

// size says bytes as people do.
func size(n int64) string {
	switch {
	case n >= 10*gib:
		return fmt.Sprintf("%d GiB", n/gib)
	case n >= gib:
		return fmt.Sprintf("%.1f GiB", float64(n)/float64(gib))
	}
	return fmt.Sprintf("%d MiB", n/mib)
}
