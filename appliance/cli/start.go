// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/api"
)

func startVerb(o *options) *cobra.Command {
	return operationVerb(o, api.Start, "Start services that were stopped, or the whole stack",
		`Start the services named, or the whole stack where none is named, in the order
of their dependencies. It is done once they are healthy.`)
}
