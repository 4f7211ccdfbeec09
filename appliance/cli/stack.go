// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/status"
)

func stopStackVerb(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "stop-stack",
		Short: "Stop all services in reverse order and keep them stopped",
		Long: `Stop all services in reverse order, each with its own grace, and keep them
stopped until start-stack or the next start of the daemon. The machine's
shutdown does this while engine and daemon still run, so that a database closes
properly.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return stopStack(c.Context(), o) },
	}
}

func stopStack(ctx context.Context, o *options) error {
	cl := o.client()
	if _, err := cl.StopStack(ctx); err != nil {
		return err
	}
	last := ""
	err := cl.Watch(ctx, func(r status.Report) bool {
		var up []string
		for _, s := range r.Services {
			if s.State == "running" || s.State == "paused" {
				up = append(up, s.Name)
			}
		}
		if r.Stack == "stopped" || r.Stack == "held" && len(up) == 0 {
			return false
		}
		if text := strings.Join(up, ", "); text != last && text != "" {
			last = text
			fmt.Fprintf(o.io.Err, "holdfast: stopping, still running: %s\n", text)
		}
		return true
	})
	if errors.Is(err, context.Canceled) {
		return exit(ExitInterrupted, "interrupted; the daemon goes on stopping the stack")
	}
	return err
}

func startStackVerb(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "start-stack",
		Short: "Run a stack again that stop-stack stopped",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := o.client().StartStack(c.Context())
			return err
		},
	}
}
