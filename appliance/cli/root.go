// SPDX-License-Identifier: Apache-2.0

// Package cli is the holdfast command of the box, one verb a file. It parses
// and prints; the work is done elsewhere. stdout is the answer, stderr the
// rest, and --json is a contract (appliance/status).
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/api"
)

// IO is what the command talks to.
type IO struct{ Out, Err io.Writer }

// options are the flags every verb has.
type options struct {
	io     IO
	socket string
}

func (o *options) client() *api.Client { return api.NewClient(o.socket) }

// Execute runs the command line and returns the exit code; an error is one
// line on stderr.
func Execute(ctx context.Context, std IO, args []string) int {
	cobra.EnableCommandSorting = false // what one needs most comes first
	root := newRoot(&options{io: std})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	code := Code(err)
	var c *codeError
	if code == ExitFailed && !errors.As(err, &c) && usage(err) {
		code = ExitUsage
		err = fmt.Errorf("%w; see holdfast --help", err)
	}
	var refused *api.Problem
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		code = ExitUsage // a service or an operation that is not there
	}
	if errors.As(err, &refused) && refused.Status == http.StatusUnprocessableEntity {
		code = ExitRefused
	}
	if errors.Is(err, api.ErrNoDaemon) {
		code = ExitNoDaemon
		err = fmt.Errorf("%w; look at systemctl status holdfast", err)
	}
	if errors.Is(err, context.Canceled) {
		// Ctrl-C, or systemd at shutdown: nothing is wrong.
		err = errors.New("ended before it was done")
	}
	fmt.Fprintf(std.Err, "holdfast: %v\n", err)
	return code
}

// newRoot is the whole command line.
func newRoot(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:           "holdfast",
		Short:         "Look after the stack of this box",
		Long:          "holdfast runs and looks after the stack of this box.\n\n" + ExitHelp,
		SilenceErrors: true, SilenceUsage: true,
		Args:              noArgs,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetOut(o.io.Out)
	root.SetErr(o.io.Err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return exit(ExitUsage, "%v; see %s --help", err, c.CommandPath())
	})
	root.PersistentFlags().StringVar(&o.socket, "socket", api.Socket, "API socket of the daemon")
	for _, g := range []struct {
		id, title string
		verbs     []*cobra.Command
	}{
		{"look", "See how the box is:", []*cobra.Command{statusVerb(o), topVerb(o), logsVerb(o), eventsVerb(o), planVerb(o), configVerb(o), dataVerb(o), doctorVerb(o)}},
		{"act", "Do something:", []*cobra.Command{restartVerb(o), stopVerb(o), startVerb(o), waitHealthyVerb(o)}},
		{"change", "Change the release:", []*cobra.Command{upgradeVerb(o), rollbackVerb(o), historyVerb(o), whyVerb(o), channelVerb(o), forecastVerb(o), drillVerb(o)}},
		{"box", "What the box itself runs:", []*cobra.Command{daemonVerb(o), stopStackVerb(o), startStackVerb(o), firstbootVerb(o), deadlineVerb(o), emergencyVerb(o), screenVerb(o), upgradePrepareVerb()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, v := range g.verbs {
			v.GroupID = g.id
			root.AddCommand(v)
		}
	}
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	root.SetHelpCommandGroupID("look") // or the help would have a heading for it
	return root
}

// usageError marks what cobra says about arguments.
type usageError struct{ error }

func usage(err error) bool {
	var u usageError
	return errors.As(err, &u)
}

// noArgs is cobra.NoArgs with our exit code.
func noArgs(c *cobra.Command, args []string) error {
	if err := cobra.NoArgs(c, args); err != nil {
		return usageError{err}
	}
	return nil
}
