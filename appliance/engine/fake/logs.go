// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

// Say makes a service's container write a line to its log.
func (e *Engine) Say(service, stream, text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		if c.Labels[engine.ServiceLabel] == service {
			e.logs[c.ID] = append(e.logs[c.ID], engine.LogLine{Time: time.Now(), Stream: stream, Text: text})
		}
	}
}

// Logs gives what containers wrote, as the real engine does.
func (e *Engine) Logs(ctx context.Context, id string, o engine.LogOptions, each func(engine.LogLine) error) error {
	for n := 0; ; {
		e.mu.Lock()
		c, err := e.find(id)
		if err != nil {
			e.mu.Unlock()
			return err
		}
		all, up := e.logs[id], c.Up()
		e.mu.Unlock()
		if n == 0 && o.Tail >= 0 {
			n = max(0, len(all)-o.Tail)
		}
		for ; n < len(all); n++ {
			if all[n].Time.Before(o.Since) {
				continue
			}
			if err := each(all[n]); err != nil {
				return err
			}
		}
		if !o.Follow || !up {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond): // its clock, see the package
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
