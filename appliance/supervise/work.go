// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// meter counts the turns of the loop and the time they take.
type meter struct {
	mu   sync.Mutex
	work status.Work
}

// turn counts one that began then.
func (m *meter) turn(began time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.work.Took(time.Since(began))
}

// Work is what the loop has done since it began. It may be called at any time.
func (s *Supervisor) Work() status.Work {
	s.turns.mu.Lock()
	defer s.turns.mu.Unlock()
	return s.turns.work
}
