// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/status"
)

// work asks for an operation and waits for its end.
type work struct {
	o              *options
	verb           string
	noWait, asJSON bool
}

// operationVerb is the part that restart, stop and start share.
func operationVerb(o *options, verb, short, long string) *cobra.Command {
	x := &work{o: o, verb: verb}
	c := &cobra.Command{
		Use:   verb + " [SERVICE...]",
		Short: short,
		Long: long + `

It waits until that is done, saying on stderr what it waits for; Ctrl-C ends the
waiting only. Exit code 1 means that it was not done.`,
		RunE: func(c *cobra.Command, args []string) error { return x.run(c.Context(), args) },
	}
	c.Flags().BoolVar(&x.noWait, "no-wait", false, "only ask for it, and print the operation's id")
	c.Flags().BoolVar(&x.asJSON, "json", false, "the operation as JSON; its fields are a contract")
	return c
}

func (x *work) run(ctx context.Context, services []string) error {
	cl := x.o.client()
	op, err := cl.Do(ctx, x.verb, services)
	if err != nil {
		return err
	}
	if x.noWait {
		if x.asJSON {
			return printJSON(x.o.io.Out, op)
		}
		_, err := fmt.Fprintln(x.o.io.Out, op.ID)
		return err
	}
	watch, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { x.progress(watch, services) })
	end, err := cl.Await(ctx, op.ID)
	cancel()
	watching.Wait()
	if err != nil && ctx.Err() != nil {
		return exit(ExitInterrupted, "no longer waiting; the daemon goes on, holdfast status shows how it ends")
	}
	if err != nil {
		return err
	}
	if x.asJSON {
		if err := printJSON(x.o.io.Out, end); err != nil {
			return err
		}
	}
	if end.State != "done" {
		return exit(ExitFailed, "%s of %s failed: %s", x.verb, whatText(services), indented(end.Error, "  "))
	}
	if !x.asJSON {
		took := ""
		if d := end.Ended.Sub(end.Started); !end.Ended.IsZero() && d > 0 {
			took = fmt.Sprintf(" in %.1f s", d.Seconds())
		}
		_, err = fmt.Fprintf(x.o.io.Out, "%s %s%s\n", doneText[x.verb], whatText(services), took)
	}
	return err
}

var doneText = map[string]string{api.Restart: "restarted", api.Stop: "stopped", api.Start: "started"}

func whatText(services []string) string {
	if len(services) == 0 {
		return "the stack"
	}
	return strings.Join(services, ", ")
}

// progress says on stderr what is still to come, until ctx ends. It says
// nothing in the first second, which is enough for most.
func (x *work) progress(ctx context.Context, services []string) {
	quiet := time.NewTimer(time.Second)
	defer quiet.Stop()
	select {
	case <-quiet.C:
	case <-ctx.Done():
		return
	}
	last := ""
	err := x.o.client().Watch(ctx, func(r status.Report) bool {
		if text := x.pending(r, services); text != last && text != "" {
			last = text
			fmt.Fprintf(x.o.io.Err, "holdfast: waiting for %s\n", text)
		}
		return true
	})
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, api.ErrNoDaemon) {
		fmt.Fprintf(x.o.io.Err, "holdfast: progress can't be shown: %v\n", err)
	}
}

// pending names the services that are not yet as they were asked to be.
func (x *work) pending(r status.Report, services []string) string {
	r.Services = slices.Clone(r.Services)
	if len(services) > 0 {
		r.Services = slices.DeleteFunc(r.Services, func(s status.Service) bool { return !slices.Contains(services, s.Name) })
	}
	if x.verb != api.Stop {
		names := notWell(r)
		return strings.Join(names, ", ")
	}
	var up []string
	for _, s := range r.Services {
		if s.State == "running" || s.State == "paused" {
			up = append(up, s.Name)
		}
	}
	if len(up) == 0 {
		return ""
	}
	return strings.Join(up, ", ") + " to end"
}
