// SPDX-License-Identifier: Apache-2.0

// Package misbehave lets a demo program fail in the ways that services fail in
// the field, when its environment asks for it. Tests of the box need that;
// without the switches nothing here does anything. It refuses a switch with a
// value it cannot read, so that a test never passes because of a typing error.
package misbehave

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Switches are what the environment asks for. The README of the demo lists
// them for people.
type Switches struct {
	// FailHealth, CrashLoop: from this long after the start; nil is never.
	FailHealth *time.Duration
	CrashLoop  *time.Duration
	// LeakMiB is kept and touched each second, in MiB.
	LeakMiB int
	// FillDir is filled with FillMiB of data, or until the disk is full.
	FillDir string
	FillMiB int
	// HangOnStop ignores the signals that ask to stop.
	HangOnStop bool
	// MigrateFail lets a migration fail just before it is committed.
	MigrateFail bool

	start time.Time
}

// Most a switch may ask for; a mistake should not take a machine with it.
const (
	maxLeakMiB = 64 << 10
	maxFillMiB = 1 << 20
)

// Read takes the switches from the environment, start is now.
func Read(getenv func(string) string, now time.Time) (*Switches, error) {
	s := &Switches{start: now}
	var errs []error
	s.FailHealth = after(getenv, "FAIL_HEALTH", &errs)
	s.CrashLoop = after(getenv, "CRASH_LOOP", &errs)
	s.HangOnStop = on(getenv, "HANG_ON_STOP", &errs)
	s.MigrateFail = on(getenv, "MIGRATE_FAIL", &errs)
	if v := getenv("LEAK_MEMORY"); v != "" {
		s.LeakMiB = number("LEAK_MEMORY", v, maxLeakMiB, &errs)
	}
	if v := getenv("FILL_DISK"); v != "" {
		dir, size, ok := cutLast(v, ":")
		if !ok || !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("FILL_DISK=%q: write FOLDER:MIB, like /tmp:512", v))
		} else {
			s.FillDir, s.FillMiB = dir, number("FILL_DISK", size, maxFillMiB, &errs)
		}
	}
	return s, errors.Join(errs...)
}

// after reads "1" or "true" (at once) or a duration such as "30s".
func after(getenv func(string) string, key string, errs *[]error) *time.Duration {
	v := getenv(key)
	if v == "" {
		return nil
	}
	if b, err := strconv.ParseBool(v); err == nil {
		if !b {
			return nil
		}
		return new(time.Duration)
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		*errs = append(*errs, fmt.Errorf("%s=%q: write 1, or a duration after which it begins, like 30s", key, v))
		return nil
	}
	return &d
}

func on(getenv func(string) string, key string, errs *[]error) bool {
	v := getenv(key)
	if v == "" {
		return false
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		*errs = append(*errs, fmt.Errorf("%s=%q: write 1 or 0", key, v))
	}
	return b
}

func number(key, v string, most int, errs *[]error) int {
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > most {
		*errs = append(*errs, fmt.Errorf("%s: %q is no number of MiB from 0 to %d", key, v, most))
		return 0
	}
	return n
}

func cutLast(s, sep string) (before, last string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Unhealthy tells whether health must fail at this time.
func (s *Switches) Unhealthy(now time.Time) bool {
	return s.FailHealth != nil && now.Sub(s.start) >= *s.FailHealth
}

// ErrCrash is what Run returns when the program has to die.
var ErrCrash = errors.New("CRASH_LOOP is set: dying as asked")

// Run leaks, fills and crashes as asked until ctx ends; say tells people. It
// returns nil when ctx ends.
func (s *Switches) Run(ctx context.Context, say func(string, ...any)) error {
	if s.FillDir != "" {
		if err := s.Fill(ctx, say); err != nil {
			say("FILL_DISK stopped", "error", err)
		}
	}
	crash := make(<-chan time.Time)
	if s.CrashLoop != nil {
		t := time.NewTimer(*s.CrashLoop)
		defer t.Stop()
		crash = t.C
	}
	leak := make(<-chan time.Time)
	if s.LeakMiB > 0 {
		say("LEAK_MEMORY is set", "mib_per_second", s.LeakMiB)
		t := time.NewTicker(time.Second)
		defer t.Stop()
		leak = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-crash:
			return ErrCrash
		case <-leak:
			s.leak()
		}
	}
}

var leaked atomic.Pointer[[][]byte]

// leak keeps memory and touches each page of it, so that it counts.
func (s *Switches) leak() {
	b := make([]byte, s.LeakMiB<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	all := [][]byte{b}
	if old := leaked.Load(); old != nil {
		all = append(all, *old...)
	}
	leaked.Store(&all)
}

// Fill writes the file "filled" into FillDir. A full disk is what it is for,
// and no error.
func (s *Switches) Fill(ctx context.Context, say func(string, ...any)) error {
	name := filepath.Join(s.FillDir, "filled")
	say("FILL_DISK is set", "file", name, "mib", s.FillMiB)
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i*i>>7 + i) // not all zeros: a file system could leave a hole
	}
	for n := range s.FillMiB {
		if ctx.Err() != nil {
			return nil
		}
		if _, err := f.Write(chunk); err != nil {
			if isFull(err) {
				say("the disk is full, as asked", "written_mib", n)
				return nil
			}
			return err
		}
	}
	return f.Sync()
}

// isFull tells the ways a file system says that it has no room.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
