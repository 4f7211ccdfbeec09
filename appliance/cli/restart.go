// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/api"
)

func restartVerb(o *options) *cobra.Command {
	return operationVerb(o, api.Restart, "Restart services, or the whole stack",
		`Restart the services named, or the whole stack where none is named. Each gets
its stop grace to end; what depends on it with restart: true is restarted too.
Data and configuration stay as they are.`)
}
