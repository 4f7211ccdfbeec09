// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/status"
)

func statusVerb(o *options) *cobra.Command {
	var asJSON, check bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what runs, how it is, and what needs attention",
		Long: `Show what runs, how it is, and what needs attention, each with what to do.

A service is waiting (for what it depends on), created, running, paused, exited,
completed (a one-shot that is done), backoff (it failed and is tried again),
crash-loop (five failures in a row, tries go on), shed (stopped to leave the
others room), stopped (on request), held or unknown (the engine is away).
MEMORY is what it uses of its limit; holdfast top shows the rest.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := o.client().Status(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(o.io.Out, r)
			} else {
				// Without what is used the rest is worth showing.
				u, _ := o.client().Usage(c.Context())
				err = writeStatus(o.io.Out, r, u)
			}
			if err == nil && check && r.Stack != "healthy" {
				return exit(ExitNotHealthy, "the stack is %s", r.Stack)
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "the report as JSON; its fields are a contract")
	c.Flags().BoolVar(&check, "check", false, "exit with 4 unless the stack is healthy")
	return c
}

// writeStatus prints a report for people, with what is used where that is
// known.
func writeStatus(w io.Writer, r status.Report, u status.Usage) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "stack\t%s\n", r.Stack)
	fmt.Fprintf(t, "release\t%s\n", strings.TrimSpace(r.Release.Name+" "+r.Release.Version))
	if r.Release.OS != "" {
		fmt.Fprintf(t, "os\t%s\n", r.Release.OS)
	}
	if r.Slot != "" {
		fmt.Fprintf(t, "slot\t%s, generation %d\n", r.Slot, r.Generation)
		fmt.Fprintf(t, "root\t%s\n", rootText(r.Root))
	}
	upgradeRows(t, r)
	placeRows(t, r)
	// On another host the kernel has run for long before.
	if r.Timings.StackHealthy > 0 && r.Slot != "" {
		fmt.Fprintf(t, "healthy after\t%.1f s (daemon %.1f s, images %.1f s)\n", r.Timings.StackHealthy, r.Timings.DaemonStarted, r.Timings.ImagesLoaded)
	}
	budgetRows(t, r)
	t.Flush()
	if len(r.Services) > 0 {
		b.WriteString("\n" + serviceTable(r, u))
	}
	if len(r.Allowances) > 0 {
		t := newTable()
		t.row("ALLOWED", "KEY", "REASON")
		for _, a := range r.Allowances {
			t.row(a.Service, a.Key, a.Reason)
		}
		b.WriteString("\n" + t.String())
	}
	for _, c := range r.Conditions {
		fmt.Fprintf(&b, "\n%s: %s (%s)\n  to do: %s\n", c.Severity, indented(c.Text, "  "), c.Code, indented(c.Remedy, "  "))
	}
	_, err := io.WriteString(w, trimmed(b.String()))
	return err
}

// budgetRows prints the machine's side of the budget.
func budgetRows(t io.Writer, r status.Report) {
	if n := r.Budget; n != nil {
		text := fmt.Sprintf("%s of memory and %s cores guaranteed", sizeText(float64(n.Guaranteed.Memory)), trimFloat(n.Guaranteed.CPU))
		if n.Size != "" {
			text = "size " + n.Size + ": " + text
		}
		text += fmt.Sprintf(", %s and %s for the system, of %s and %s", sizeText(float64(n.Reserve.Memory)), trimFloat(n.Reserve.CPU), sizeText(float64(n.Node.Memory)), trimFloat(n.Node.CPU))
		if !n.Admitted {
			text += ": TOO MUCH"
		}
		fmt.Fprintf(t, "budget\t%s\n", text)
	}
	if p := r.Pressure; p != nil && p.Level != "none" && p.Level != "" {
		fmt.Fprintf(t, "pressure\t%s\n", status.Printable(strings.TrimSpace(p.Level+" on "+p.Resource+" "+p.Text)))
	}
	if e := r.Engine; e != nil {
		text := strings.TrimSpace("up " + e.Version)
		if !e.Up {
			text = "DOES NOT ANSWER"
		}
		if e.Mends > 0 {
			text += fmt.Sprintf(", restarted %d times by the supervisor", e.Mends)
		}
		fmt.Fprintf(t, "engine\t%s\n", status.Printable(text))
	}
}

// serviceTable lists the services; columns of which nothing is known are left
// out.
func serviceTable(r status.Report, u status.Usage) string {
	classes := slices.ContainsFunc(r.Services, func(s status.Service) bool { return s.Class != "" })
	used := map[string]status.TopService{}
	for _, s := range status.TopOf(r, status.Usage{}, u).Services {
		if s.Measured {
			used[s.Service] = s
		}
	}
	row := func(s, class, state, health, restarts, memory, since, reason string) []any {
		cells := []any{s}
		if classes {
			cells = append(cells, class)
		}
		cells = append(cells, state, health, restarts)
		if len(used) > 0 {
			cells = append(cells, memory)
		}
		return append(cells, since, reason)
	}
	t := newTable()
	t.row(row("SERVICE", "CLASS", "STATE", "HEALTH", "RESTARTS", "MEMORY", "SINCE", "REASON")...)
	for _, s := range r.Services {
		memory := "-"
		if m, ok := used[s.Name]; ok {
			memory = sizeText(float64(m.Memory))
			if m.MemoryLimit > 0 {
				memory += " of " + sizeText(float64(m.MemoryLimit))
			}
		}
		t.row(row(s.Name, orDash(s.Class), s.State, s.Health, fmt.Sprint(s.Restarts), memory, ago(r.Now, s.Since), reasonText(r.Now, s))...)
	}
	return t.String()
}

// reasonText says why a service is as it is, and when it is tried again.
func reasonText(now time.Time, s status.Service) string {
	text := s.Reason
	for _, p := range s.Probes {
		if p.Health == "unhealthy" && !strings.Contains(text, p.Kind) {
			text = strings.TrimPrefix(text+"; "+p.Kind+" probe: "+p.Output, "; ")
		}
	}
	if wait := s.NextTry.Sub(now); !s.NextTry.IsZero() && wait > 0 && !strings.Contains(text, "next try") {
		text = strings.TrimPrefix(fmt.Sprintf("%s; next try in %s", text, wait.Round(time.Second)), "; ")
	}
	return text
}

// placeRows prints where the box is and how it was configured, on a box.
func placeRows(t io.Writer, r status.Report) {
	if r.Hostname != "" {
		fmt.Fprintf(t, "host name\t%s\n", r.Hostname)
	}
	for _, u := range r.URLs {
		fmt.Fprintf(t, "url\t%s\n", u)
	}
	for _, a := range r.Addresses {
		fmt.Fprintf(t, "address\t%s/%d on %s\n", a.Address, a.Prefix, a.Interface)
	}
	if r.Platform != "" {
		fmt.Fprintf(t, "platform\t%s\n", r.Platform)
		fmt.Fprintf(t, "ssh\t%s\n", sshText(r.SSH))
	}
	if r.Data != nil {
		fmt.Fprintf(t, "data\t%s\n", dataText(*r.Data))
	}
	for _, s := range r.Config.Sources {
		if s.State != "absent" {
			fmt.Fprintf(t, "configuration\t%s\n", sourceText(s))
		}
		for _, p := range s.Problems {
			fmt.Fprintf(t, "\t%s\n", status.Printable(p))
		}
	}
}

// dataText says in half a line where the data lives; holdfast data says all.
func dataText(d status.DataDisk) string {
	switch {
	case d.Held != nil:
		return "not in use"
	case d.Disk != nil:
		return fmt.Sprintf("on data disk %s, %s", d.Disk.Device, bytesText(d.Disk.Bytes))
	}
	return "on the system disk"
}

func sshText(s status.SSH) string {
	if !s.Enabled {
		return "off"
	}
	return keysText(len(s.Keys)) + ", host key " + s.HostKey
}

func sourceText(s status.ConfigSource) string {
	text := s.State + ", from " + s.Where
	if s.Why != "" {
		text += " (the newest is " + s.Why + ")"
	}
	if s.Text != "" {
		text += ": " + s.Text
	}
	return status.Printable(text)
}

func rootText(r status.Root) string {
	text := "NOT VERIFIED"
	if r.Verified {
		text = "verified"
	}
	if r.ReadOnly {
		text += ", read-only"
	} else {
		text += ", WRITABLE"
	}
	return text + ", root hash " + r.Hash
}

// ago is how long ago since was, in the largest unit that is not 0.
func ago(now, since time.Time) string {
	if since.IsZero() {
		return "-"
	}
	d := max(0, now.Sub(since))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}
