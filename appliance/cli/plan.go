// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/status"
)

func planVerb(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "plan",
		Short: "Show what the supervisor is doing or about to do, and why",
		Long: `Show what the supervisor is doing or about to do, and why: each operation with
its cause, and each service that waits with what it waits for. It only looks;
the supervisor acts on its own.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := o.client().Plan(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(o.io.Out, p)
			}
			return writePlan(o.io.Out, p)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "the plan as JSON; its fields are a contract")
	return c
}

// writePlan prints a plan for people.
func writePlan(w io.Writer, p status.Plan) error {
	text := ""
	if len(p.Ops) > 0 {
		t := newTable()
		t.row("STATE", "OPERATION", "TARGET", "CONTAINER", "BECAUSE")
		for _, op := range p.Ops {
			is := "next"
			if op.Running {
				is = "running"
			}
			t.row(is, op.Kind, op.Target, orDash(short(op.Container)), op.Because)
		}
		text = t.String()
	}
	if len(p.Waiting) > 0 {
		if text != "" {
			text += "\n"
		}
		t := newTable()
		t.row("WAITING", "BECAUSE")
		for _, x := range p.Waiting {
			t.row(x.Service, x.Because)
		}
		text += t.String()
	}
	if text == "" {
		text = "Nothing to do: everything is as the stack says.\n"
	}
	if wait := p.Next.Sub(p.Time); !p.Next.IsZero() && !p.Time.IsZero() && wait > 0 {
		text += fmt.Sprintf("\nThe next step by the clock is in %s; whatever happens before is acted on at once.\n", wait.Round(time.Second))
	}
	_, err := io.WriteString(w, text)
	return err
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
