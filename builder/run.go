// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// step is one named part of a bake. Steps are values, so that a plan can be
// printed and compared; what they hand each other is in work.
type step struct {
	name string
	// needs are the steps that must have ended before.
	needs []string
	run   func(ctx context.Context, w *work) (made, error)
}

// made is what a step says of its product.
type made struct {
	cached bool
	bytes  int64
}

// printPlan is the plan in order, one step a line with what it waits for.
func printPlan(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&b, "%s", s.name)
		if len(s.needs) > 0 {
			fmt.Fprintf(&b, " <- %s", strings.Join(s.needs, ", "))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// runSteps runs each step as soon as what it needs is done, two or more at a
// time where the plan allows it. The first error stops the rest; it is
// returned once all that ran has ended. Times come back in plan order.
func runSteps(ctx context.Context, steps []step, w *work, p Progress) ([]StepTime, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(map[string]chan struct{}, len(steps))
	for _, s := range steps {
		done[s.name] = make(chan struct{})
	}
	times := make([]StepTime, len(steps))
	var wg sync.WaitGroup
	for i, s := range steps {
		wg.Go(func() {
			for _, n := range s.needs {
				select {
				case <-done[n]:
				case <-ctx.Done():
					return
				}
			}
			if ctx.Err() != nil {
				return
			}
			start := time.Now()
			m, err := s.run(ctx, w)
			if err != nil {
				// Whoever fails because another was cancelled says nothing new.
				if ctx.Err() == nil {
					cancel(fmt.Errorf("%s: %w", s.name, err))
				}
				return
			}
			times[i] = StepTime{Name: s.name, Seconds: seconds(time.Since(start)), Cached: m.cached, Bytes: m.bytes}
			p.Done(times[i])
			close(done[s.name])
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return times, nil
}
