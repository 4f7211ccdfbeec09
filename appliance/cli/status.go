// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
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
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := o.client().Status(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(o.io.Out)
				enc.SetIndent("", "  ")
				err = enc.Encode(r)
			} else {
				err = writeStatus(o.io.Out, r)
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

// writeStatus prints a report for people.
func writeStatus(w io.Writer, r status.Report) error {
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
	placeRows(t, r)
	if r.Timings.StackHealthy > 0 {
		fmt.Fprintf(t, "healthy after\t%.1f s (daemon %.1f s, images %.1f s)\n", r.Timings.StackHealthy, r.Timings.DaemonStarted, r.Timings.ImagesLoaded)
	}
	t.Flush()
	if len(r.Services) > 0 {
		fmt.Fprintf(&b, "\n")
		t = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "SERVICE\tSTATE\tHEALTH\tRESTARTS\tSINCE\tREASON\n")
		for _, s := range r.Services {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", s.Name, s.State, s.Health, s.Restarts, ago(r.Now, s.Since), s.Reason)
		}
		t.Flush()
	}
	for _, c := range r.Conditions {
		fmt.Fprintf(&b, "\n%s: %s (%s)\n  to do: %s\n", c.Severity, status.Printable(c.Text), c.Code, status.Printable(c.Remedy))
	}
	// A table's last column leaves blanks where it is empty.
	for line := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
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
