// SPDX-License-Identifier: Apache-2.0

// Program packer-plugin-holdfast is the Packer plugin: Packer runs it for each
// `source "holdfast"`. It only joins the parts: what enters the root file
// system comes from appliance/rootfs, the bake is package builder.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/plugin"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/packerplugin"
	postami "github.com/holdfast/holdfast/builder/packerplugin/ami"
	postgce "github.com/holdfast/holdfast/builder/packerplugin/gce"
	postova "github.com/holdfast/holdfast/builder/packerplugin/ova"
	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/builder/supervisorbin"
	"github.com/holdfast/holdfast/builder/version"
)

func main() {
	sandbox.Child()
	if err := packerplugin.Serve(os.Args[1:], version.Version, packerplugin.New(bake, operatingSystem()), targets()); err != nil {
		if errors.Is(err, plugin.ErrManuallyStartedPlugin) || len(os.Args) < 2 {
			err = errors.New("this is a Packer plugin: install it with `packer plugins install --path " + os.Args[0] + " github.com/holdfast/holdfast`, then run `packer build`")
		}
		fmt.Fprintln(os.Stderr, "packer-plugin-holdfast:", err)
		os.Exit(1)
	}
}

// targets are the post-processors: holdfast-ova and so on.
func targets() map[string]packersdk.PostProcessor {
	return map[string]packersdk.PostProcessor{
		"ova": postova.New(),
		"gce": postgce.New(),
		"ami": postami.New(),
	}
}

// bake puts the supervisor in as late as possible, so that a plugin without
// one still describes and validates.
func bake(ctx context.Context, c builder.Config, p builder.Progress) (*builder.Result, error) {
	supervisor, err := supervisorbin.Binary()
	if err != nil {
		return nil, err
	}
	c.OS.Supervisor = supervisor
	return builder.Bake(ctx, c, p)
}
