// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/status"
)

func logsVerb(o *options) *cobra.Command {
	l := &logPrinter{w: o.io.Out, clean: isTerminal(o.io.Out)}
	lines := tailFlag(tailDefault)
	var since string
	var follow bool
	c := &cobra.Command{
		Use: "logs [-f] [--tail N] [--since TIME] [SERVICE...]", DisableFlagsInUseLine: true,
		Short: "Show what services wrote to their logs",
		Long: `Show what services wrote to their logs: those named, or all of them, line by
line in the order of their times. Without --tail or --since these are the newest
100 lines of each service.

--since takes a duration before now (90s, 15m, 2h) or a time (2026-01-31T12:00:00Z,
2026-01-31 12:00, 12:00; UTC where no zone is given).

With -f it goes on with new lines, over restarts of a service, until Ctrl-C, with
exit code 0. On a terminal, control characters are shown as question marks.`,
		RunE: func(c *cobra.Command, args []string) error {
			q := api.LogQuery{Services: args, Tail: int(lines), Follow: follow}
			if since != "" {
				at, err := sinceTime(since, time.Now())
				if err != nil {
					return err
				}
				q.Since = at
				if !c.Flags().Changed("tail") {
					q.Tail = -1
				}
			}
			return followed(c.Context(), follow, l.run(c.Context(), o, q))
		},
	}
	f := c.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with new lines as they come")
	f.Var(&lines, "tail", "how many of the newest lines of each service, or all")
	f.StringVar(&since, "since", "", "only lines since this time, or so long before now")
	f.BoolVarP(&l.times, "timestamps", "t", false, "show the time of each line")
	f.BoolVar(&l.asJSON, "json", false, "a JSON object a line; its fields are a contract")
	return c
}

// logPrinter prints lines behind the names of their services.
type logPrinter struct {
	w             io.Writer
	asJSON, times bool
	clean         bool // of control characters
	width         int
	err           error
}

func (l *logPrinter) run(ctx context.Context, o *options, q api.LogQuery) error {
	if !l.asJSON {
		r, err := o.client().Status(ctx)
		if err != nil {
			return err
		}
		names := q.Services
		if len(names) == 0 {
			for _, s := range r.Services {
				names = append(names, s.Name)
			}
		}
		l.width = widest(names)
	}
	err := o.client().Logs(ctx, q, func(line status.LogLine) bool {
		l.err = l.print(line)
		return l.err == nil
	})
	return errors.Join(l.err, err)
}

func (l *logPrinter) print(line status.LogLine) error {
	if l.asJSON {
		return json.NewEncoder(l.w).Encode(line)
	}
	text := line.Text
	if l.clean {
		text = terminalText(text)
	}
	if l.times {
		text = line.Time.UTC().Format("2006-01-02T15:04:05.000Z") + " " + text
	}
	_, err := fmt.Fprintf(l.w, "%-*s | %s\n", l.width, line.Service, text)
	return err
}

// colour is what programs put into logs to be seen on a terminal (ECMA-48,
// select graphic rendition).
var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// terminalText is a line that can't move the cursor or set a title.
func terminalText(text string) string {
	parts := strings.Split(colour.ReplaceAllString(text, ""), "\t")
	for i, p := range parts {
		parts[i] = status.Printable(p)
	}
	return strings.Join(parts, "\t")
}

// sinceTime reads --since.
func sinceTime(v string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(form, v); err == nil {
			return t, nil
		}
	}
	for _, form := range []string{time.TimeOnly, "15:04"} {
		if t, err := time.Parse(form, v); err == nil {
			y, m, d := now.UTC().Date()
			at := time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
			if at.After(now) {
				at = at.AddDate(0, 0, -1)
			}
			return at, nil
		}
	}
	return time.Time{}, exit(ExitUsage, "--since %.60q is no time: write 15m, 2h, 12:00 or 2026-01-31T12:00:00Z", v)
}
