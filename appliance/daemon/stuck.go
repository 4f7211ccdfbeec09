// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"time"

	"github.com/holdfast/holdfast/appliance/mend"
)

// stuck ends a container that the engine did not end in time although the
// engine itself answers: its shim hangs.
func (d *Daemon) stuck(ctx context.Context, container string) {
	ping, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if d.c.Engine.Ping(ping) != nil {
		return // the engine hangs, not the shim
	}
	if err := mend.KillShim(d.c.Root, container); err == nil {
		d.mended("the engine could not end container " + container[:12] + ": killed its shim, which hung")
	}
}
