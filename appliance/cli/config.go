// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/config"
)

func configVerb(o *options) *cobra.Command {
	var asJSON bool
	var root string
	c := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration that counts, and where each key comes from",
		Long: `Show the configuration that counts, and where each key comes from. Secrets are
not shown. Only root may read it.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return showConfig(o.io.Out, root, asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "the same as JSON; its fields are a contract")
	c.Flags().StringVar(&root, "root", "", "folder that stands for /")
	c.Flags().MarkHidden("root")
	c.AddCommand(&cobra.Command{
		Use:   "check FILE",
		Short: "Say whether a box would take a configuration; - is standard input",
		Long: `Say whether a box would take a configuration; - is standard input.

Exit code 0: it is good. Exit code 1: it is refused, or can't be read; standard
output has a line for each problem, FILE:LINE: KEY: TEXT; WHAT TO DO.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit(ExitUsage, "name one file: %s FILE", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return checkConfig(o.io.Out, args[0], c.InOrStdin(), time.Now())
		},
	})
	return c
}

func showConfig(w io.Writer, root string, asJSON bool) error {
	e, err := config.Load(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no configuration of this boot yet; look at systemctl status holdfast-config")
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; run this as root", err)
	case err != nil:
		return err
	}
	e = e.Redacted()
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(e)
	}
	return writeConfig(w, e)
}

// writeConfig prints the configuration for people.
func writeConfig(w io.Writer, e config.Effective) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "platform\t%s\n", platformText(e))
	t.Flush()
	fmt.Fprintf(&b, "\n")
	t = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "KEY\tFROM\tVALUE\n")
	for _, r := range e.Config.Rows() {
		top, _, _ := strings.Cut(r.Key, ".")
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Key, e.Origin[top], r.Value)
	}
	fmt.Fprintf(t, "\t\t\nSOURCE\tSTATE\tWHERE\n")
	for _, s := range e.Sources {
		state := s.State
		if s.Why != "" {
			state += " (" + s.Why + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Source, state, s.Where)
	}
	t.Flush()
	for _, s := range e.Sources {
		if s.Text != "" {
			fmt.Fprintf(&b, "\n%s: %s\n", s.Where, s.Text)
		}
		if len(s.Problems) > 0 {
			fmt.Fprintf(&b, "\n%s is refused:\n", s.Where)
		}
		for _, p := range s.Problems {
			fmt.Fprintf(&b, "  %s\n", p)
		}
	}
	for line := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func platformText(e config.Effective) string {
	var about []string
	for _, s := range []string{e.Instance.ID, e.Instance.Name, e.Instance.Zone} {
		if s != "" {
			about = append(about, s)
		}
	}
	if len(about) == 0 {
		return string(e.Platform)
	}
	return string(e.Platform) + " (" + strings.Join(about, ", ") + ")"
}

// checkConfig reads one byte more than a document may have, which is enough
// for it to be refused.
func checkConfig(w io.Writer, name string, stdin io.Reader, now time.Time) error {
	in := stdin
	if name == "-" {
		name = "standard input"
	} else {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, config.MaxDocument+1))
	if err != nil {
		return err
	}
	c, problems := config.Parse(name, data)
	for _, p := range problems {
		fmt.Fprintln(w, p)
	}
	switch n := len(problems); {
	case n == 1:
		return exit(ExitFailed, "%s is refused for 1 problem", name)
	case n > 1:
		return exit(ExitFailed, "%s is refused for %d problems", name, n)
	}
	for _, p := range c.Warnings(now) {
		p.File = name
		fmt.Fprintf(w, "warning: %s\n", p)
	}
	fmt.Fprintf(w, "%s: a box takes this\n", name)
	return nil
}
