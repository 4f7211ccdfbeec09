// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
)

// maxConsole bounds what a console may say; a machine that says more is stuck
// in a loop, and its last words are what a person wants.
const maxConsole = 8 << 20

// escapes are terminal sequences: firmware and systemd colour their words.
var escapes = regexp.MustCompile(`\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|\][^\x07]*\x07|[=>c])`)

// Console is what a machine said on its serial line, without colours.
type Console struct {
	mu      sync.Mutex
	text    strings.Builder
	pending string // bytes after the last line end
	closed  bool
	// changed is closed and replaced whenever text grows or the line ends.
	changed chan struct{}
}

func newConsole() *Console { return &Console{changed: make(chan struct{})} }

// read copies r into the console, and each raw byte into log, until r ends.
func (c *Console) read(r io.Reader, log io.Writer) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			_, _ = log.Write(buf[:n]) // a lost log loses comfort, not the test
			c.append(string(buf[:n]))
		}
		if err != nil {
			c.end()
			return
		}
	}
}

func (c *Console) append(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending += s
	cut := strings.LastIndexByte(c.pending, '\n') + 1
	if len(c.pending)-cut > 64<<10 { // a line without end, such as a progress bar
		cut = len(c.pending)
	}
	if cut == 0 {
		return
	}
	if c.text.Len() < maxConsole {
		clean := escapes.ReplaceAllString(c.pending[:cut], "")
		c.text.WriteString(strings.ReplaceAll(clean, "\r", ""))
	}
	c.pending = c.pending[cut:]
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text.WriteString(escapes.ReplaceAllString(c.pending, ""))
	c.pending = ""
	c.closed = true
	close(c.changed)
	c.changed = make(chan struct{})
}

// Text is all that was said so far, whole lines only.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// Mark is a place in the console for WaitAfter.
func (c *Console) Mark() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Len()
}

// Wait returns the first match of re and its groups in all that is said, or an
// error that names re and ends with the last lines said.
func (c *Console) Wait(ctx context.Context, re string) ([]string, error) {
	return c.WaitAfter(ctx, 0, re)
}

// WaitAfter is Wait for what is said after a mark.
func (c *Console) WaitAfter(ctx context.Context, mark int, re string) ([]string, error) {
	want, err := regexp.Compile(`(?m)` + re)
	if err != nil {
		return nil, err
	}
	for {
		c.mu.Lock()
		text, closed, changed := c.text.String()[mark:], c.closed, c.changed
		c.mu.Unlock()
		if m := want.FindStringSubmatch(text); m != nil {
			return m, nil
		}
		if closed {
			return nil, fmt.Errorf("the machine ended before its console said /%s/; it last said:\n%s", re, tail(text, 25))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for /%s/ on the console: %w; it last said:\n%s", re, context.Cause(ctx), tail(text, 25))
		}
	}
}

// tail is the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
