// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"

	"github.com/moby/moby/client"
)

// Info is what an engine says about itself.
type Info struct {
	// Version of the engine, "26.1.5".
	Version string
	// Root is the folder of its data, on the host it runs on.
	Root string
	// CgroupDriver is "systemd" or "cgroupfs", CgroupVersion "1" or "2".
	CgroupDriver, CgroupVersion string
}

// Info asks the engine about itself.
func (d *Docker) Info(ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r, err := d.cli.Info(ctx, client.InfoOptions{})
	if err != nil {
		return Info{}, wrap("ask about the engine", err)
	}
	i := r.Info
	return Info{Version: i.ServerVersion, Root: i.DockerRootDir, CgroupDriver: i.CgroupDriver, CgroupVersion: i.CgroupVersion}, nil
}
