// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"sync"
)

// escapes are terminal sequences: firmware and systemd colour and clear.
var escapes = regexp.MustCompile(`\x1b(\[[0-9;:?=]*[A-Za-z]|[()][A-Z0-9]|\][^\x07]*\x07|[=>c])`)

// telling are the console lines a person wants while the box starts: what the
// box's own programs say, and everything that says why it does not start.
var telling = regexp.MustCompile(`holdfast: |dm-verity|[Vv]erity.*(fail|corrupt)|Kernel panic|You are in emergency mode|\[FAILED\]|Security [Vv]iolation|Access Denied`)

// stamp is what the kernel's log puts before a program's words.
var stamp = regexp.MustCompile(`^\[ *\d+\.\d+\] [a-z-]+\[\d+\]: `)

// keepLines is how much of the console's end an error shows.
const keepLines = 15

// console takes what the box says on its serial line: all of it goes to log,
// the telling lines to show, the last ones are kept.
type console struct {
	mu      sync.Mutex
	log     io.Writer
	show    io.Writer
	all     bool
	pending []byte
	last    []string
	shown   map[string]bool // each telling line once: a unit that keeps failing says so each time
}

// Write never fails: a console that cannot be shown must not stop the box.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.log.Write(p)
	c.pending = append(c.pending, p...)
	for {
		i := bytes.IndexByte(c.pending, '\n')
		// A line without end, such as a progress bar, is cut.
		if i < 0 && len(c.pending) < 8<<10 {
			return len(p), nil
		}
		if i < 0 {
			i = len(c.pending) - 1
		}
		c.line(string(c.pending[:i]))
		c.pending = c.pending[i+1:]
	}
}

func (c *console) line(s string) {
	s = strings.TrimRight(strings.ReplaceAll(escapes.ReplaceAllString(s, ""), "\r", ""), " ")
	if s == "" {
		return
	}
	c.last = append(c.last, s)
	if len(c.last) > keepLines {
		c.last = c.last[1:]
	}
	if c.all {
		_, _ = io.WriteString(c.show, "  "+s+"\n")
		return
	}
	s = stamp.ReplaceAllString(s, "")
	if !telling.MatchString(s) || c.shown[s] {
		return
	}
	if c.shown == nil || len(c.shown) > 1000 {
		c.shown = map[string]bool{}
	}
	c.shown[s] = true
	_, _ = io.WriteString(c.show, "  "+s+"\n")
}

// tail is the end of what was said.
func (c *console) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.last, "\n")
}
