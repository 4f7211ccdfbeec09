// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/api"
)

func stopVerb(o *options) *cobra.Command {
	return operationVerb(o, api.Stop, "Stop services, or the whole stack",
		`Stop the services named, or the whole stack where none is named: those that
depend on others first, each with its own grace. They stay stopped, over
restarts of the daemon and reboots of the machine, until holdfast start.`)
}
