// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestManual holds docs/cli.md to the command line: every verb with all of its
// flags, and the table of exit codes.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Hidden || sub.Name() == "help" {
				continue
			}
			at := "`" + sub.CommandPath()
			if !strings.Contains(manual, at+"`") && !strings.Contains(manual, at+" ") {
				t.Errorf("docs/cli.md does not speak of %s", sub.CommandPath())
			}
			if sub.Short == "" || strings.HasSuffix(sub.Short, ".") {
				t.Errorf("%s: its line in the help is %q", sub.CommandPath(), sub.Short)
			}
			sub.Flags().VisitAll(func(f *pflag.Flag) {
				if !f.Hidden && f.Name != "help" && !strings.Contains(manual, "`--"+f.Name) {
					t.Errorf("docs/cli.md does not speak of --%s of %s", f.Name, sub.CommandPath())
				}
			})
			walk(sub)
		}
	}
	walk(newRoot(&options{io: IO{&bytes.Buffer{}, &bytes.Buffer{}}}))
	for line := range strings.Lines(ExitHelp) {
		code, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if code != "Exit" && !strings.Contains(manual, "| "+code+" |") {
			t.Errorf("docs/cli.md does not have exit code %s", code)
		}
	}
}
