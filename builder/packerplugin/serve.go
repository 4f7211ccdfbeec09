// SPDX-License-Identifier: Apache-2.0

package packerplugin

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/hashicorp/packer-plugin-sdk/plugin"
	pluginversion "github.com/hashicorp/packer-plugin-sdk/version"
	"golang.org/x/sys/unix"
)

// stopGrace is how long a cancelled bake may take to clean up after Packer is
// gone. What it started dies with this process in any case.
const stopGrace = 20 * time.Second

// Serve does what Packer asks of a plugin program: args are those after the
// program's name ("describe", or "start builder NAME"). It returns when Packer
// is done with the plugin or dead, and never while a bake still runs, unless
// that bake does not stop within stopGrace.
func Serve(args []string, version string, b *Builder) error {
	set := plugin.NewSet()
	set.SetVersion(pluginversion.NewPluginVersion(version, "", ""))
	set.RegisterBuilder(plugin.DEFAULT_NAME, b)
	if len(args) == 0 || args[0] != "start" {
		return set.RunCommand(args...)
	}

	// The log goes to Packer. Without a handler the first line after Packer's
	// death would end this process by SIGPIPE, before a bake has cleaned up.
	// (Ignoring the signal would make every child inherit that.)
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)

	gone, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.gone = gone
	watched, err := watchPacker(cancel)
	if err != nil {
		return fmt.Errorf("watch packer: %w", err)
	}
	served := make(chan error, 1)
	go func() { served <- set.RunCommand(args...) }()
	select {
	case err = <-served:
		// The connection ended. Packer closes it when it is done, and the
		// kernel does when it is dead: either way no one waits for a bake.
		cancel()
	case <-watched:
		err = ErrPackerGone
	}
	return b.drain(err)
}

// drain waits for a cancelled bake to clean up.
func (b *Builder) drain(err error) error {
	done := make(chan struct{})
	go func() { b.running.Wait(); close(done) }()
	deadline := time.NewTimer(stopGrace)
	defer deadline.Stop()
	select {
	case <-done:
		return err
	case <-deadline.C:
		return fmt.Errorf("the bake did not stop within %s after packer was gone", stopGrace)
	}
}
