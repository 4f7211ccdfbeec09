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
		fmt.Fprintf(&b, "\n%s: %s (%s)\n  to do: %s\n", c.Severity, c.Text, c.Code, c.Remedy)
	}
	// A table's last column leaves blanks where it is empty.
	for line := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
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
