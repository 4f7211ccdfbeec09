// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/firstboot"
)

func firstbootVerb(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:    "firstboot",
		Short:  "Steps of a boot that units run",
		Hidden: true,
		Args:   noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return exit(ExitUsage, "say which step; see holdfast firstboot --help")
		},
	}
	for _, s := range []struct {
		use, short string
		run        func(context.Context, firstboot.Env) error
	}{
		{"storage", "Make the state volume, or find it", firstboot.Storage},
		{"data", "Mount the data of the committed generation", firstboot.Data},
		{"factory", "Mount the factory partition", firstboot.Factory},
		{"ingress", "Let everybody in where the committed generation runs", openIngress},
		{"identity", "Make the machine's identity, or find it", firstboot.Identity},
		{"config-local", "Configure the box from what needs no network", configLocal},
		{"config", "Configure the box with what its cloud's metadata says", configFull},
	} {
		c.AddCommand(&cobra.Command{
			Use: s.use, Short: s.short, Args: noArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				return s.run(c.Context(), firstboot.Env{Out: o.io.Err, Wish: func() firstboot.Wish { return dataWish("") }})
			},
		})
	}
	return c
}
