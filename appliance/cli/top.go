// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/status"
)

// topEvery is the time between two looks.
const topEvery = time.Second

func topVerb(o *options) *cobra.Command {
	var once, asJSON bool
	var by string
	c := &cobra.Command{
		Use:   "top",
		Short: "Show live what each service uses, against its budget",
		Long: `Show live what each service uses, against its budget: the bar is full at the
limit (or, without one, at the whole machine), and | in it marks what the
service is guaranteed. CPU is in percent of one core, THROTTLED how often the
service wanted more than its limit, memory is without file cache that can go at
once.

On a terminal it draws itself anew each second until Ctrl-C, with exit code 0.
Elsewhere, with --once or with --json it looks twice, a second apart, and prints
the result.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"start", "cpu", "memory"}, by) {
				return exit(ExitUsage, "--sort %.60q: use start, cpu or memory", by)
			}
			t := &topper{o: o, w: o.io.Out, size: sizeOf(o.io.Out), every: topEvery, by: by}
			if once || asJSON || !isTerminal(o.io.Out) {
				return t.once(c.Context(), asJSON)
			}
			return t.live(c.Context())
		},
	}
	c.Flags().BoolVar(&once, "once", false, "print one frame and end")
	c.Flags().BoolVar(&asJSON, "json", false, "one frame as JSON; its fields are a contract")
	c.Flags().StringVar(&by, "sort", "start", "order of the services: start, cpu or memory")
	return c
}

// isTerminal says whether w is one.
func isTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// topper looks and shows.
type topper struct {
	o     *options
	w     io.Writer
	size  func() (columns, rows int)
	every time.Duration
	by    string
	last  status.Usage
}

// look compares what is used now with the last look.
func (t *topper) look(ctx context.Context) (status.Top, status.Report, error) {
	r, err := t.o.client().Status(ctx)
	if err != nil {
		return status.Top{}, r, err
	}
	u, err := t.o.client().Usage(ctx)
	if err != nil {
		return status.Top{}, r, err
	}
	top := status.TopOf(r, t.last, u)
	t.last = u
	sortTop(top.Services, t.by)
	return top, r, nil
}

func sortTop(s []status.TopService, by string) {
	switch by {
	case "cpu":
		slices.SortStableFunc(s, func(a, b status.TopService) int { return cmp.Compare(known(b.CPU), known(a.CPU)) })
	case "memory":
		slices.SortStableFunc(s, func(a, b status.TopService) int { return cmp.Compare(b.Memory, a.Memory) })
	}
}

func known(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

func (t *topper) once(ctx context.Context, asJSON bool) error {
	if _, _, err := t.look(ctx); err != nil {
		return err
	}
	// Use is a difference over this time.
	wait := time.NewTimer(t.every)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	top, r, err := t.look(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(t.w, top)
	}
	columns := 120
	if isTerminal(t.w) {
		columns, _ = t.size()
	}
	for _, line := range topLines(top, r, columns) {
		if _, err := fmt.Fprintln(t.w, line); err != nil {
			return err
		}
	}
	return nil
}

// live draws on the terminal's other screen, and gives the first one back.
func (t *topper) live(ctx context.Context) error {
	if _, err := io.WriteString(t.w, "\x1b[?1049h"); err != nil {
		return err
	}
	defer io.WriteString(t.w, "\x1b[?25h\x1b[?1049l")
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		top, r, err := t.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		columns, _ := t.size()
		var lines []string
		var later *api.Problem
		switch {
		case err == nil:
			lines = topLines(top, r, columns)
		case errors.Is(err, api.ErrNoDaemon), errors.As(err, &later) && later.Status == 503:
			// It comes back, and with it what it measures.
			lines = []string{"holdfast: " + err.Error(), "", "Looking again each second; Ctrl-C ends this."}
		default:
			return err
		}
		if _, err := io.WriteString(t.w, drawn(lines, t.size)); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
