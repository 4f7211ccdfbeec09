// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/api"
)

func stopVerb(o *options) *cobra.Command {
	return operationVerb(o, api.Stop, "Stop services, or the whole stack",
		`Stop the services named, or the whole stack in reverse order where none is
named. A service that is stopped by name stays stopped, over restarts of the
daemon and reboots of the machine, until holdfast start. The whole stack stays
stopped until holdfast start or the next start of the daemon.`)
}
