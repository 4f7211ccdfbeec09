// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"sync"
	"time"

	"github.com/holdfast/holdfast/builder/show"
)

// meterEvery is the least time between two lines of a Meter.
const meterEvery = 3 * time.Second

// Meter turns bytes done into lines with bytes, rate and time left. It may be
// called from several goroutines.
type Meter struct {
	name string
	say  func(format string, args ...any)
	now  func() time.Time

	mu    sync.Mutex
	start time.Time
	first int64
	told  time.Time
}

// NewMeter makes a meter whose lines start with name and go to say.
func NewMeter(name string, say func(format string, args ...any)) *Meter {
	return &Meter{name: name, say: say, now: time.Now}
}

// Progress hears bytes done so far and in all. What was done at the first call
// (a resumed upload) does not count for the rate.
func (m *Meter) Progress(done, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if m.start.IsZero() {
		m.start, m.told, m.first = now, now, done
		return
	}
	if now.Sub(m.told) < meterEvery {
		return
	}
	m.told = now
	rate := float64(done-m.first) / now.Sub(m.start).Seconds()
	line := fmt.Sprintf("%s: %s of %s, %s/s", m.name, show.Bytes(done), show.Bytes(total), show.Bytes(int64(rate)))
	if rate > 0 && total > done {
		line += fmt.Sprintf(", %s left", (time.Duration(float64(total-done)/rate) * time.Second).Round(time.Second))
	}
	m.say("%s", line)
}
