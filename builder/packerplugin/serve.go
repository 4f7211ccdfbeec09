// SPDX-License-Identifier: Apache-2.0

package packerplugin

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/plugin"
	pluginversion "github.com/hashicorp/packer-plugin-sdk/version"
	"golang.org/x/sys/unix"
)

// stopGrace is how long a cancelled bake or upload may take to clean up after Packer is
// gone. What it started dies with this process in any case.
const stopGrace = 75 * time.Second

// life is how long the work of a plugin process may go on.
type life struct {
	// gone ends when Packer does; running counts what must end before the
	// process may.
	gone    context.Context
	running sync.WaitGroup
}

// begin gives the context of one piece of work, which ends early when Packer
// dies; done must be called at its end.
func (l *life) begin(ctx context.Context) (_ context.Context, done func()) {
	l.running.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.gone, func() { cancel(ErrPackerGone) })
	return ctx, func() {
		stop()
		cancel(nil)
		l.running.Done()
	}
}

// watched is a post-processor whose work ends with Packer.
type watched struct {
	packersdk.PostProcessor
	life *life
}

// PostProcess implements packersdk.PostProcessor.
func (w watched) PostProcess(ctx context.Context, ui packersdk.Ui, a packersdk.Artifact) (packersdk.Artifact, bool, bool, error) {
	ctx, done := w.life.begin(ctx)
	defer done()
	return w.PostProcessor.PostProcess(ctx, ui, a)
}

// Serve does what Packer asks of a plugin program: args are those after the
// program's name ("describe", or "start builder NAME"); posts are the
// post-processors by name, "ova" for holdfast-ova. It returns when Packer
// is done with the plugin or dead, and never while work still goes on, unless
// that does not stop within stopGrace.
func Serve(args []string, version string, b *Builder, posts map[string]packersdk.PostProcessor) error {
	set := plugin.NewSet()
	set.SetVersion(pluginversion.NewPluginVersion(version, "", ""))
	set.RegisterBuilder(plugin.DEFAULT_NAME, b)
	for name, p := range posts {
		set.RegisterPostProcessor(name, watched{p, b.life})
	}
	if len(args) == 0 || args[0] != "start" {
		return set.RunCommand(args...)
	}

	// The log goes to Packer. Without a handler the first line after Packer's
	// death would end this process by SIGPIPE, before a bake has cleaned up.
	// (Ignoring the signal would make every child inherit that.)
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)

	gone, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.life.gone = gone
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
	return b.life.drain(err)
}

// drain waits for cancelled work to clean up.
func (l *life) drain(err error) error {
	done := make(chan struct{})
	go func() { l.running.Wait(); close(done) }()
	deadline := time.NewTimer(stopGrace)
	defer deadline.Stop()
	select {
	case <-done:
		return err
	case <-deadline.C:
		return fmt.Errorf("the work did not stop within %s after packer was gone", stopGrace)
	}
}
