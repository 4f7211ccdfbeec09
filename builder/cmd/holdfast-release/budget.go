// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/stack"
)

type budgetOptions struct {
	stack, size, memory, data string
	cpus                      float64
	json                      bool
}

func budgetCommand() *cobra.Command {
	var o budgetOptions
	cmd := &cobra.Command{
		Use: "budget", Short: "show what each service of a stack gets, and whether it fits", Args: noArgs,
		Long: `Calculates what each service of a stack is guaranteed and may use at most, and
proves that it fits, as a bake and every box do. By default it does so for every
size the stack is made for, on the least machine of that size: what a kernel
finds of its memory. --size takes one of them, --cpus, --memory and --data
another machine. Exit code 1: it does not fit; the table shows why.

--json prints a list of budgets, or of refusals, one for each size.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "stack"); err != nil {
				return err
			}
			n, err := o.node()
			if err != nil {
				return usageError{err}
			}
			st, err := stack.Load(cmd.Context(), o.stack, stack.Options{})
			if err != nil {
				return err
			}
			return o.show(cmd.OutOrStdout(), st, n)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.stack, "stack", "", "the Compose file")
	f.StringVar(&o.size, "size", "", "one size, such as XS (default all that the stack is made for)")
	f.Float64Var(&o.cpus, "cpus", 0, "processors of the machine (default the size's)")
	f.StringVar(&o.memory, "memory", "", "memory of the machine as its kernel sees it, such as 32GiB (default the size's, less a sixteenth)")
	f.StringVar(&o.data, "data", "", "the volume for data, such as 500GiB (default the size's)")
	f.BoolVar(&o.json, "json", false, "print it as JSON")
	return cmd
}

// node is what the flags say about the machine, 0 where they do not.
func (o budgetOptions) node() (budget.Node, error) {
	n := budget.Node{CPUs: o.cpus}
	if !(o.cpus >= 0 && o.cpus <= 4096) {
		return n, fmt.Errorf("--cpus: %v is no number of processors", o.cpus)
	}
	for flag, to := range map[string]*int64{"memory": &n.Memory, "data": &n.Data} {
		text := map[string]string{"memory": o.memory, "data": o.data}[flag]
		if text == "" {
			continue
		}
		bytes, err := stack.ParseSize(text)
		if err != nil {
			return n, fmt.Errorf("--%s: %w", flag, err)
		}
		*to = bytes
	}
	return n, nil
}

// show prints one budget for each size, and fails where one does not fit.
func (o budgetOptions) show(out io.Writer, st *stack.Stack, over budget.Node) error {
	sizes, err := o.sizes(st, over)
	if err != nil {
		return err
	}
	var all []any
	var texts, refused []string
	for _, s := range sizes {
		b, err := budget.For(st, s.name, s.node)
		var no *budget.Refused
		switch {
		case errors.As(err, &no):
			refused = append(refused, no.Budget.Size)
			all, texts = append(all, no), append(texts, no.Error())
		case err != nil:
			return err
		default:
			all, texts = append(all, b), append(texts, b.Table())
		}
	}
	if o.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		if err := e.Encode(all); err != nil {
			return err
		}
	} else {
		fmt.Fprint(out, strings.Join(texts, "\n"))
	}
	if refused != nil {
		return fmt.Errorf("%s does not fit size %s: the table shows why", st.Name, strings.Join(refused, ", "))
	}
	return nil
}

// asked is a size and the machine to calculate it for.
type asked struct {
	name string
	node budget.Node
}

// sizes are the stack's, or the one that was named; without a name a machine
// that was described whole gets the size a box of it would choose.
func (o budgetOptions) sizes(st *stack.Stack, over budget.Node) ([]asked, error) {
	if o.size == "" && over.CPUs > 0 && over.Memory > 0 {
		return []asked{{"", over}}, nil
	}
	var out []asked
	for _, s := range budget.SizesOf(st) {
		if o.size != "" && s.Name != o.size {
			continue
		}
		n := budget.NodeOf(st, s)
		if over.CPUs > 0 {
			n.CPUs = over.CPUs
		}
		if over.Memory > 0 {
			n.Memory = over.Memory
		}
		if over.Data > 0 {
			n.Data = over.Data
		}
		out = append(out, asked{s.Name, n})
	}
	if out == nil {
		_, err := budget.For(st, o.size, budget.Node{CPUs: 1, Memory: 1})
		return nil, usageError{fmt.Errorf("--size: %w", err)}
	}
	return out, nil
}
