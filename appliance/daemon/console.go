// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/appliance/upgrade"
)

// progressEvery is the least time between two progress lines: a console may
// be a serial line.
const progressEvery = 2 * time.Second

// console writes what a person in front of the screen should know, one line
// each, "holdfast: ...", and nothing twice.
type console struct {
	mu       sync.Mutex
	w        io.Writer
	last     time.Time // of a progress line
	shown    map[string]bool
	services map[string]string
	// Of the place: the newest lines.
	announced, access string
}

func newConsole(w io.Writer) *console {
	if w == nil {
		w = io.Discard
	}
	return &console{w: w, shown: map[string]bool{}, services: map[string]string{}}
}

func (c *console) line(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write(format, args...)
}

func (c *console) write(format string, args ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintf(c.w, "holdfast: %s\n", status.Printable(line))
	}
}

// progress writes at most one line each progressEvery, and one at the end.
func (c *console) progress(p supervise.Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.Fetching != nil {
		c.fetching(p)
		return
	}
	if p.End {
		c.write("loaded %s, %d MB (%d of %d)", p.Image, mb(p.Total), p.Number, p.Count)
		c.last = time.Time{}
		return
	}
	now := time.Now()
	if now.Sub(c.last) < progressEvery {
		return
	}
	c.last = now
	percent := int64(0)
	if p.Total > 0 {
		percent = p.Done * 100 / p.Total
	}
	c.write("loading %s %d%% %d of %d MB", p.Image, percent, mb(p.Done), mb(p.Total))
}

func mb(n int64) int64 { return (n + 500_000) / 1_000_000 }

// conditions writes those that are new and those that went.
func (c *console) conditions(now []status.Condition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]bool{}
	for _, x := range now {
		key := conditionKey(x)
		seen[key] = true
		if !c.shown[key] {
			c.write("%s: %s; %s", x.Severity, x.Text, x.Remedy)
		}
	}
	c.shown = seen
}

func conditionKey(x status.Condition) string {
	// Counters in a text must not print a line each second.
	if x.Code == "service-crash-loop" || x.Code == upgrade.CondTrial || x.Code == upgrade.CondHeld {
		return x.Code + x.Remedy
	}
	return x.Code + ": " + x.Text
}

// said notes a condition that the caller has written in words of its own.
func (c *console) said(x status.Condition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown[conditionKey(x)] = true
}

// place writes where the box is and how it does, and how admins get in,
// whenever that is not what the last such line said.
func (c *console) place(r status.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(r.Addresses) == 0 && c.announced == "" {
		return // not yet, or not a box's daemon
	}
	if text := r.Announcement(); text != c.announced {
		c.announced = text
		c.write("%s", text)
	}
	if text := r.Access(); text != c.access {
		c.access = text
		if text == "" {
			text = "admin access by ssh is off"
		}
		c.write("%s", text)
	}
}

// services writes what became of each service.
func (c *console) states(now []status.Service) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range now {
		is := s.State
		if s.State == "running" && s.Health != "none" {
			is = s.Health
		}
		if c.services[s.Name] == is {
			continue
		}
		c.services[s.Name] = is
		switch is {
		case "created", "waiting", "starting":
			continue // steps on the way
		}
		c.write("service %s: %s", s.Name, is)
	}
}
