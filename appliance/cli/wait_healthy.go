// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/status"
)

func waitHealthyVerb(o *options) *cobra.Command {
	var limit time.Duration
	c := &cobra.Command{
		Use:   "wait-healthy",
		Short: "Wait until the whole stack is healthy",
		Long: `Wait until the whole stack is healthy, and not on trial any more, saying on
stderr what is waited for.
It waits for ever, and through restarts of the daemon, unless --timeout is given.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, limit)
				defer cancel()
			}
			w := &waiter{o: o, want: "healthy"}
			err := w.wait(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				return exit(ExitNotHealthy, "not healthy after %s: %s; see holdfast status", limit, w.last)
			}
			return err
		},
	}
	c.Flags().DurationVar(&limit, "timeout", 0, "give up after this time, e.g. 5m; 0 is never")
	return c
}

// waiter follows the daemon's reports until the stack is in a wanted state.
type waiter struct {
	o    *options
	want string
	last string
}

func (w *waiter) wait(ctx context.Context) error {
	for {
		reached := false
		err := w.o.client().Watch(ctx, func(r status.Report) bool {
			// A trial is not what the box has settled for.
			reached = r.Stack == w.want && (r.Upgrade == nil || !r.Upgrade.Trial)
			if !reached {
				w.say(waitText(r))
			}
			return !reached
		})
		switch {
		case reached:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, api.ErrNoDaemon):
			return err
		}
		w.say("the daemon to answer")
		// The socket appears with the daemon: look again shortly, there is
		// no event for it that works in every sandbox.
		t := time.NewTimer(500 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

func (w *waiter) say(text string) {
	if text != w.last {
		fmt.Fprintf(w.o.io.Err, "holdfast: waiting for %s\n", text)
	}
	w.last = text
}

// waitText names what is not well yet, without numbers that count.
func waitText(r status.Report) string {
	if r.Stack == "held" {
		for _, c := range r.Conditions {
			if c.Severity == "critical" {
				return "a held stack: " + c.Text
			}
		}
	}
	names := notWell(r)
	if len(names) == 0 && r.Upgrade != nil && r.Upgrade.Trial {
		return "the trial of " + r.Upgrade.Target + " to be decided"
	}
	if len(names) == 0 {
		return "the stack, which is " + r.Stack
	}
	return strings.Join(names, ", ")
}

// notWell names the services that are not as they shall be, each with how it
// is.
func notWell(r status.Report) []string {
	var names []string
	for _, s := range r.Services {
		well := s.State == "completed" || s.State == "running" && (s.Health == "healthy" || s.Health == "none") && s.Reason == ""
		if !well {
			is := s.State
			if is == "running" {
				is = s.Health
			}
			if strings.HasPrefix(s.Reason, "waits for ") {
				is = s.Reason
			}
			names = append(names, s.Name+" ("+is+")")
		}
	}
	return names
}
