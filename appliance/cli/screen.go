// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/status"
)

// redrawEvery heals a screen that kernel messages were written across, and
// keeps "since" true.
const redrawEvery = 30 * time.Second

func screenVerb(o *options) *cobra.Command {
	return &cobra.Command{
		Use:    "screen",
		Short:  "Show the state of the box on a terminal, for ever (systemd starts this on tty1)",
		Hidden: true,
		Args:   noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s := &screen{o: o, w: o.io.Out, size: sizeOf(o.io.Out), every: redrawEvery}
			return s.run(c.Context())
		},
	}
}

// screen draws reports as they come. It takes no input.
type screen struct {
	o     *options
	w     io.Writer
	size  func() (columns, rows int)
	every time.Duration
}

func (s *screen) run(ctx context.Context) error {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	reports := make(chan *status.Report)
	go s.follow(ctx, reports)
	var last *status.Report
	since := time.Now() // last was given
	shown := ""
	for {
		again := false
		select {
		case last = <-reports:
			since = time.Now()
		case <-tick.C:
			again = true
		case <-ctx.Done():
			return nil
		}
		lines := waitingLines()
		if last != nil {
			r := *last
			r.Now = r.Now.Add(time.Since(since))
			lines = screenLines(r)
		}
		text := drawn(lines, s.size)
		if text == shown && !again {
			continue
		}
		shown = text
		if _, err := io.WriteString(s.w, text); err != nil {
			return err
		}
	}
}

// follow passes on each report, and nil while the daemon does not answer.
func (s *screen) follow(ctx context.Context, to chan<- *status.Report) {
	pass := func(r *status.Report) bool {
		select {
		case to <- r:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for ctx.Err() == nil {
		err := s.o.client().Watch(ctx, func(r status.Report) bool { return pass(&r) })
		if err != nil && ctx.Err() == nil && !errors.Is(err, api.ErrNoDaemon) {
			fmt.Fprintf(s.o.io.Err, "holdfast: %v\n", err)
		}
		if !pass(nil) {
			return
		}
		// As in wait-healthy: the socket appears with the daemon.
		t := time.NewTimer(500 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// drawn is what puts lines over all that is on the terminal, cut to its size:
// home, each line with the rest of its row cleared, then the rest of the
// screen. Nothing is cleared before, so nothing flickers.
func drawn(lines []string, size func() (columns, rows int)) string {
	columns, rows := size()
	lines = wrapped(lines, columns)
	if len(lines) > rows {
		more := len(lines) - rows + 1
		lines = append(lines[:rows-1:rows-1], fmt.Sprintf("... %d lines more: holdfast status", more))
	}
	var b strings.Builder
	b.WriteString("\x1b[?25l\x1b[H")
	for i, line := range lines {
		b.WriteString(line + "\x1b[K")
		if i < len(lines)-1 {
			b.WriteString("\r\n")
		}
	}
	b.WriteString("\x1b[J")
	return b.String()
}

// wrapped breaks lines at blanks, or else anywhere, to at most columns
// characters; what is not printable shows as a question mark.
func wrapped(lines []string, columns int) []string {
	var out []string
	for _, line := range lines {
		rest := []rune(status.Printable(line))
		for len(rest) > columns {
			at := columns
			for at > columns/2 && rest[at] != ' ' {
				at--
			}
			if rest[at] != ' ' {
				at = columns
			}
			out = append(out, strings.TrimRight(string(rest[:at]), " "))
			rest = []rune("    " + strings.TrimLeft(string(rest[at:]), " "))
		}
		out = append(out, string(rest))
	}
	return out
}

func waitingLines() []string {
	return []string{"Holdfast", "", "The supervisor does not answer yet. It comes after the configuration, the data and the container engine; what each of them does is on the first serial port."}
}

// screenLines is the whole screen for a report.
func screenLines(r status.Report) []string {
	head := strings.TrimSpace(r.Release.Name + " " + r.Release.Version)
	if head == "" {
		head = "Holdfast"
	}
	if r.Hostname != "" {
		head += " on " + r.Hostname
	}
	lines := []string{head, ""}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "state\t%s\n", r.Stack)
	if r.Upgrade != nil {
		if text := upgradeText(*r.Upgrade); text != "" {
			fmt.Fprintf(t, "upgrade\t%s\n", text)
		}
	}
	for _, u := range r.URLs {
		fmt.Fprintf(t, "open\t%s\n", u)
	}
	for _, a := range r.Addresses {
		fmt.Fprintf(t, "address\t%s/%d on %s\n", a.Address, a.Prefix, a.Interface)
	}
	if len(r.Addresses) == 0 {
		fmt.Fprintf(t, "address\tnone yet\n")
	}
	if r.SSH.Enabled {
		fmt.Fprintf(t, "admin access\tssh, %s as root\n", keysText(len(r.SSH.Keys)))
		fmt.Fprintf(t, "host key\t%s\n", r.SSH.HostKey)
	} else {
		fmt.Fprintf(t, "admin access\toff, no ssh key is configured\n")
	}
	if r.Data != nil {
		fmt.Fprintf(t, "data\t%s\n", dataText(*r.Data))
	}
	fmt.Fprintf(t, "box\t%s\n", strings.Trim(r.Platform+", slot "+r.Slot+fmt.Sprintf(", generation %d, ", r.Generation)+r.Release.OS, ", "))
	t.Flush()
	lines = append(lines, strings.Split(strings.TrimRight(b.String(), "\n"), "\n")...)
	if len(r.Conditions) > 0 {
		lines = append(lines, "")
	}
	for _, c := range r.Conditions {
		lines = append(lines, strings.Split(c.Severity+": "+c.Text, "\n")...)
		lines = append(lines, "  to do: "+c.Remedy)
	}
	if len(r.Services) > 0 {
		b.Reset()
		t = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "\nSERVICE\tSTATE\tHEALTH\tRESTARTS\tSINCE\n")
		for _, s := range r.Services {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", s.Name, s.State, s.Health, s.Restarts, ago(r.Now, s.Since))
		}
		t.Flush()
		lines = append(lines, strings.Split(strings.TrimRight(b.String(), "\n"), "\n")...)
	}
	return append(lines, "", "Nobody logs in here. Name, network and ssh keys are set in", sourceHint(r.Platform)+".")
}

func keysText(n int) string {
	if n == 1 {
		return "1 key"
	}
	return fmt.Sprintf("%d keys", n)
}

// sourceHint names the first place to look at on a platform.
func sourceHint(platform string) string {
	switch platform {
	case "ec2", "gce":
		return "the user data of this instance"
	case "vmware", "virtualbox":
		return "the OVF properties of this machine"
	}
	return `the file \EFI\holdfast\config.yaml on this machine's boot partition`
}

// sizeOf asks the terminal behind w, each time anew.
func sizeOf(w io.Writer) func() (columns, rows int) {
	return func() (int, int) {
		if f, ok := w.(*os.File); ok {
			if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col >= 20 && ws.Row >= 5 {
				return int(ws.Col), int(ws.Row)
			}
		}
		return 80, 25 // a PC's text mode
	}
}
