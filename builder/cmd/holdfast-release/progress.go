// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/holdfast/holdfast/builder/show"
)

// meter prints how far a download is: a line per second on a terminal or not,
// so that a log stays readable.
type meter struct {
	mu   sync.Mutex
	out  io.Writer
	what string
	now  func() time.Time
	last time.Time
}

func newMeter(out io.Writer, what string) *meter { return &meter{out: out, what: what, now: time.Now} }

func (m *meter) tick(done, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if done < total && now.Sub(m.last) < time.Second {
		return
	}
	m.last = now
	fmt.Fprintf(m.out, "%s: %s of %s\n", m.what, show.Bytes(done), show.Bytes(total))
}
