// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/status"
)

// tailDefault is how many lines events shows, and logs of each service.
const tailDefault = 100

func eventsVerb(o *options) *cobra.Command {
	var follow, asJSON bool
	lines := tailFlag(tailDefault)
	c := &cobra.Command{
		Use: "events [-f] [--tail N] [SERVICE...]", DisableFlagsInUseLine: true,
		Short: "Show what the supervisor did and saw, and why",
		Long: `Show what the supervisor did and saw, and why: of the services named, or of all.
The newest 4096 events of this run of the daemon are there, and some from before
it. Times are UTC. With -f it goes on until Ctrl-C, with exit code 0.`,
		RunE: func(c *cobra.Command, args []string) error {
			e := &eventPrinter{w: o.io.Out, asJSON: asJSON, services: args}
			return followed(c.Context(), follow, e.run(c.Context(), o, int(lines), follow))
		},
	}
	f := c.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with new events as they come")
	f.Var(&lines, "tail", "how many of the newest events, or all")
	f.BoolVar(&asJSON, "json", false, "a JSON object a line; its fields are a contract")
	return c
}

// followed makes Ctrl-C the good end of what has no other.
func followed(ctx context.Context, following bool, err error) error {
	if following && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// eventPrinter prints events, aligned by the names of the services.
type eventPrinter struct {
	w        io.Writer
	asJSON   bool
	services []string
	width    int
	last     int64
	err      error
}

func (p *eventPrinter) run(ctx context.Context, o *options, lines int, follow bool) error {
	names, err := knownServices(ctx, o, p.services)
	if err != nil {
		return err
	}
	p.width = max(widest(names), 12) // networks and volumes have longer names
	var past []status.Event
	err = o.client().Events(ctx, 0, false, func(e status.Event) bool {
		p.last = e.Number
		if p.wanted(e) {
			past = append(past, e)
		}
		return true
	})
	if err != nil {
		return err
	}
	if lines >= 0 {
		past = past[max(0, len(past)-lines):]
	}
	for _, e := range past {
		if err := p.print(e); err != nil {
			return err
		}
	}
	if !follow {
		return nil
	}
	err = o.client().Events(ctx, p.last, true, func(e status.Event) bool {
		if p.wanted(e) {
			p.err = p.print(e)
		}
		return p.err == nil
	})
	return errors.Join(p.err, err)
}

func (p *eventPrinter) wanted(e status.Event) bool {
	return len(p.services) == 0 || slices.Contains(p.services, e.Service)
}

func (p *eventPrinter) print(e status.Event) error {
	if p.asJSON {
		return json.NewEncoder(p.w).Encode(e)
	}
	_, err := io.WriteString(p.w, eventLine(e, p.width))
	return err
}

// eventLine is an event for people; width is that of the services' names.
func eventLine(e status.Event, width int) string {
	text := e.Because
	if e.Seconds >= 0.05 {
		text += fmt.Sprintf(" (took %.1f s)", e.Seconds)
	}
	if e.Error != "" {
		text = strings.TrimPrefix(text+"; error: "+e.Error, "; ")
	}
	line := fmt.Sprintf("%s  %-*s  %-14s  %s", e.Time.UTC().Format(time.DateTime), width, orDash(status.Printable(e.Service)), status.Printable(e.Act), indented(text, "    "))
	return strings.TrimRight(line, " ") + "\n"
}

// knownServices asks for the names of the stack's services and refuses others.
func knownServices(ctx context.Context, o *options, named []string) ([]string, error) {
	r, err := o.client().Status(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range r.Services {
		names = append(names, s.Name)
	}
	for _, n := range named {
		if !slices.Contains(names, n) {
			return nil, exit(ExitUsage, "the stack has no service %.60q; it has %s", n, orNothing(names))
		}
	}
	return names, nil
}

func orNothing(names []string) string {
	if len(names) == 0 {
		return "none yet"
	}
	return strings.Join(names, ", ")
}

func widest(names []string) int {
	n := 1
	for _, s := range names {
		n = max(n, len(s))
	}
	return min(n, 40)
}

// tailFlag is a number of lines, or -1 for "all".
type tailFlag int

// String implements pflag.Value.
func (t *tailFlag) String() string {
	if *t < 0 {
		return "all"
	}
	return strconv.Itoa(int(*t))
}

// Set implements pflag.Value.
func (t *tailFlag) Set(v string) error {
	if v == "all" {
		*t = -1
		return nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > 1_000_000 {
		return errors.New("want a number up to 1000000, or all")
	}
	*t = tailFlag(n)
	return nil
}

// Type implements pflag.Value.
func (*tailFlag) Type() string { return "N" }
