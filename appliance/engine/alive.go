// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"

	"github.com/moby/moby/client"
)

// Runtime asks whether the engine's containerd answers, until ctx ends: the
// engine itself answers a Ping without it, and can start nothing.
func (d *Docker) Runtime(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	// The engine asks containerd for its version, and leaves it out where
	// there is no answer.
	v, err := d.cli.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return wrap("ask for versions", err)
	}
	for _, c := range v.Components {
		if c.Name == "containerd" {
			return nil
		}
	}
	return fmt.Errorf("%w: its containerd does not", ErrUnreachable)
}
