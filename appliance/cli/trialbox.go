// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/ingress"
)

// emergencyText is what a box says that cannot start.
const emergencyText = "/usr/share/holdfast/emergency.txt"

// openIngress is the step of a boot that lets everybody in where the
// committed generation runs.
func openIngress(ctx context.Context, env firstboot.Env) error {
	return ingress.Boot(ctx, ingress.Env{Root: env.Root, Run: firstboot.Commands{}})
}

// deadlineVerb is what holdfast-deadline.service runs: systemd reboots where
// it fails.
func deadlineVerb(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "deadline", Short: "Fail where a trial is past its deadline", Hidden: true, Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			err := firstboot.Deadline(c.Context(), firstboot.Env{Out: o.io.Err})
			if c.Context().Err() != nil {
				return nil // an orderly shutdown ends it, which says nothing of a trial
			}
			if err != nil && !errors.Is(err, firstboot.ErrDeadline) {
				fmt.Fprintf(o.io.Err, "holdfast: %v\n", err)
				return nil
			}
			return err
		},
	}
}

// emergencyVerb is what a boot runs that has failed.
func emergencyVerb(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "emergency", Short: "Reboot a trial that cannot start, or say what to do", Hidden: true, Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			rebooting, err := firstboot.Emergency(c.Context(), firstboot.Env{Out: o.io.Err})
			if rebooting {
				return err
			}
			f, ferr := os.Open(emergencyText)
			if ferr != nil {
				return ferr
			}
			defer f.Close()
			if _, ferr := io.Copy(o.io.Out, f); ferr != nil {
				return ferr
			}
			return err
		},
	}
}
