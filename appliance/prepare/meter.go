// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"sync"
	"time"
)

const (
	// reportEvery is how often a report is given.
	reportEvery = time.Second
	// window is how many reports back the pace is taken.
	window = 10
)

// meter counts the bytes of a run.
type meter struct {
	mu      sync.Mutex
	p       Progress
	parts   map[string]Part
	part    string
	began   time.Time
	samples []sample
	report  func(Progress)
}

type sample struct {
	at            time.Time
	done, fetched int64
}

// step begins another part of the release, of size bytes.
func (m *meter) step(part, text string, size int64) {
	m.mu.Lock()
	m.end()
	m.part, m.p.Step, m.p.Waiting = part, text, ""
	p := m.parts[part]
	p.Size += size
	m.parts[part] = p
	m.mu.Unlock()
	m.take(time.Now())
}

// end counts the time of the part; mu is held.
func (m *meter) end() {
	now := time.Now()
	if m.part != "" {
		p := m.parts[m.part]
		p.Seconds += now.Sub(m.began).Seconds()
		m.parts[m.part] = p
	}
	m.began = now
}

func (m *meter) total(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Total = n
}

// sofar are the bytes that are in their place.
func (m *meter) sofar() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.p.Done
}

// fetched counts bytes that came, whatever they are good for.
func (m *meter) fetched(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Fetched += n
	m.p.Waiting = ""
	p := m.parts[m.part]
	p.Fetched += n
	m.parts[m.part] = p
}

// done counts bytes of the release that are in their place; reused are those
// that had not to be fetched.
func (m *meter) done(n int64, reused bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Done += n
	if !reused {
		return
	}
	m.p.Reused += n
	p := m.parts[m.part]
	p.Reused += n
	m.parts[m.part] = p
}

func (m *meter) waiting(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Waiting = why
}

// run reports until stop is called, and once more then.
func (m *meter) run() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(reportEvery)
		defer t.Stop()
		for {
			select {
			case now := <-t.C:
				m.take(now)
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-ended; m.take(time.Now()) }
}

func (m *meter) take(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples = append(m.samples, sample{now, m.p.Done, m.p.Fetched})
	m.samples = m.samples[max(0, len(m.samples)-window):]
	first := m.samples[0]
	m.p.Rate, m.p.Left = 0, 0
	if took := now.Sub(first.at).Seconds(); took > 0 {
		m.p.Rate = int64(float64(m.p.Fetched-first.fetched) / took)
		if pace := float64(m.p.Done-first.done) / took; pace > 0 && m.p.Total > m.p.Done {
			m.p.Left = int64(float64(m.p.Total-m.p.Done)/pace) + 1
		}
	}
	if m.report != nil {
		m.report(m.p)
	}
}

// undo takes back bytes that turned out to be wrong.
func (m *meter) undo(reused, came int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Done -= reused + came
	m.p.Reused -= reused
	p := m.parts[m.part]
	p.Reused -= reused
	m.parts[m.part] = p
}
