// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/status"
)

// change follows an upgrade, a rollback or a drill.
type change struct {
	o                    *options
	verb                 string
	noWait, wait, asJSON bool
	// later is true for what begins, or goes on, at another time.
	later bool

	mu      sync.Mutex
	reboots bool // what was seen last leads to a reboot
	open    bool // a line of the terminal is to be overwritten
}

func (x *change) flags(f *pflag.FlagSet) {
	f.BoolVar(&x.noWait, "no-wait", false, "only ask for it, and print the operation's id")
	f.BoolVar(&x.wait, "wait", false, "wait for the end also of what is done later")
	f.BoolVar(&x.asJSON, "json", false, "the answer as JSON; its fields are a contract")
}

// follow waits for the end of an operation, showing how far it is.
func (x *change) follow(ctx context.Context, op status.Operation) error {
	if op.State == "done" {
		return x.ended(op)
	}
	for _, n := range op.Notes {
		fmt.Fprintf(x.o.io.Err, "holdfast: %s\n", indented(n, "  "))
	}
	if x.noWait || x.later && !x.wait {
		if x.asJSON {
			return printJSON(x.o.io.Out, op)
		}
		if x.noWait {
			_, err := fmt.Fprintln(x.o.io.Out, op.ID)
			return err
		}
		_, err := fmt.Fprintf(x.o.io.Out, "asked for; holdfast status shows how far it is, holdfast history how it ended\n")
		return err
	}
	fmt.Fprintf(x.o.io.Err, "holdfast: the box goes on by itself; this may be closed, holdfast status shows how far it is\n")
	watch, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { x.progress(watch) })
	end, err := x.o.client().Await(ctx, op.ID)
	cancel()
	watching.Wait()
	x.newline()
	switch {
	case err != nil && ctx.Err() != nil:
		return exit(ExitInterrupted, "no longer waiting; the box goes on, holdfast status shows how far it is, holdfast history how it ended")
	// A reboot ends the daemon in order: it may say so before the socket goes.
	case err != nil && errors.Is(err, api.ErrNoDaemon) && x.leaving(), err == nil && end.State == "failed" && end.Result == nil && x.leaving():
		return x.away(op)
	case err != nil:
		return err
	}
	return x.ended(end)
}

// away says what comes after the reboot that has begun.
func (x *change) away(op status.Operation) error {
	if x.asJSON {
		return printJSON(x.o.io.Out, op)
	}
	_, err := fmt.Fprintf(x.o.io.Out, "the box reboots to go on; when it is back, holdfast history shows how the %s ended\n", x.verb)
	return err
}

func (x *change) ended(end status.Operation) error {
	if x.asJSON {
		if err := printJSON(x.o.io.Out, end); err != nil {
			return err
		}
	}
	r := end.Result
	switch {
	case end.State == "done" && x.asJSON:
		return nil
	case end.State == "done" && r == nil && len(end.Notes) > 0:
		_, err := fmt.Fprintln(x.o.io.Out, indented(strings.Join(end.Notes, "\n"), ""))
		return err
	case end.State == "done" && r == nil:
		_, err := fmt.Fprintln(x.o.io.Out, "done")
		return err
	case end.State == "done":
		_, err := fmt.Fprintln(x.o.io.Out, resultText(*r))
		return err
	case r != nil && r.Result == "rolled-back":
		return exit(ExitRolledBack, "%s of %s was rolled back: %s; holdfast why shows more", r.Kind, r.To, indented(r.Why, "  "))
	}
	return exit(ExitFailed, "%s failed: %s", x.verb, indented(end.Error, "  "))
}

// resultText is one row of the history as a sentence.
func resultText(r status.UpgradeResult) string {
	took := ""
	if r.Down > 0 {
		took = fmt.Sprintf(", the services were away for %.1f s", float64(r.Down)/1000)
	}
	switch r.Result {
	case "committed":
		return fmt.Sprintf("%s runs, generation %d%s", r.To, r.Runs, took)
	case "passed":
		return "the drill passed" + took
	}
	text := fmt.Sprintf("%s of %s: %s", r.Kind, r.To, r.Result)
	if r.Why != "" {
		text += ": " + status.Printable(r.Why)
	}
	return text
}

func (x *change) leaving() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.reboots
}

// progress shows on stderr how far it is, until ctx ends.
func (x *change) progress(ctx context.Context) {
	tty := isTerminal(x.o.io.Err)
	last, at := "", time.Time{}
	err := x.o.client().Watch(ctx, func(r status.Report) bool {
		u := r.Upgrade
		if u == nil {
			return true
		}
		x.mu.Lock()
		x.reboots = u.State == "switching" || u.State == "rolling-back" || u.State == "trial"
		x.mu.Unlock()
		step := u.State + " " + u.Step
		text := progressText(*u)
		switch {
		case text == "":
		case tty:
			fmt.Fprintf(x.o.io.Err, "\r\x1b[K%s", text)
			x.mu.Lock()
			x.open = true
			x.mu.Unlock()
		case step != last || time.Since(at) >= 10*time.Second:
			fmt.Fprintf(x.o.io.Err, "holdfast: %s\n", text)
			at = time.Now()
		}
		last = step
		return true
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, api.ErrNoDaemon) {
		fmt.Fprintf(x.o.io.Err, "holdfast: progress can't be shown: %v\n", err)
	}
}

// newline ends the line of the terminal that progress has left.
func (x *change) newline() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.open {
		fmt.Fprintln(x.o.io.Err)
		x.open = false
	}
}

// progressText is how far an upgrade is, in one line; "" when none is under
// way.
func progressText(u status.Upgrade) string {
	if u.State == "" || u.State == "idle" {
		return ""
	}
	text := strings.TrimSpace(u.Target + ": " + u.State)
	if u.Step != "" {
		text += ", " + u.Step
	}
	if u.Total > 0 {
		text += fmt.Sprintf(", %s of %s", sizeText(float64(u.Done)), sizeText(float64(u.Total)))
		if u.Reused > 0 {
			text += fmt.Sprintf(" (%s were here already)", sizeText(float64(u.Reused)))
		}
		if u.Rate > 0 {
			text += fmt.Sprintf(", %s/s", sizeText(float64(u.Rate)))
		}
	}
	if u.Left > 0 {
		text += ", " + (time.Duration(u.Left) * time.Second).String() + " left"
	}
	return status.Printable(text)
}
