// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/prepare"
)

// upgradePrepareVerb is the child process of the daemon that fetches and
// writes a release, so that its weight can be set apart and its memory goes
// with it.
func upgradePrepareVerb() *cobra.Command {
	return &cobra.Command{
		Use:    "upgrade-prepare",
		Short:  "Fetch and write a release (the daemon starts this)",
		Hidden: true,
		Args:   noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return prepare.Main(c.Context(), os.Stdin, os.Stdout)
		},
	}
}
