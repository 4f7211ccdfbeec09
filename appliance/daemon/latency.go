// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"slices"
	"sync"
	"time"
)

const (
	// latencyOver is how far back probes are looked at, latencyMax how many
	// of each service are kept.
	latencyOver = 5 * time.Minute
	latencyMax  = 512
)

// latencies keep how long the probes of each service took. The zero value is
// ready.
type latencies struct {
	mu  sync.Mutex
	all map[string][]latency
}

type latency struct {
	at   time.Time
	took time.Duration
}

// add notes one successful check.
func (l *latencies) add(service string, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[string][]latency{}
	}
	kept := append(l.all[service], latency{time.Now(), took})
	if n := len(kept) - latencyMax; n > 0 {
		kept = slices.Delete(kept, 0, n)
	}
	l.all[service] = kept
}

// forget begins anew: what ran before is gone.
func (l *latencies) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = nil
}

// p95 is the 95th percentile of each service over latencyOver, services
// without a check in it left out.
func (l *latencies) p95(now time.Time) map[string]time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]time.Duration{}
	for service, all := range l.all {
		var recent []time.Duration
		for _, x := range all {
			if now.Sub(x.at) <= latencyOver {
				recent = append(recent, x.took)
			}
		}
		if len(recent) == 0 {
			continue
		}
		slices.Sort(recent)
		out[service] = recent[(len(recent)*95+99)/100-1]
	}
	return out
}
