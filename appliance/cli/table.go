// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/holdfast/holdfast/appliance/status"
)

// table collects rows of columns; blank cells at the end of a row leave
// nothing behind.
type table struct {
	b strings.Builder
	t *tabwriter.Writer
}

func newTable() *table {
	t := &table{}
	t.t = tabwriter.NewWriter(&t.b, 0, 0, 2, ' ', 0)
	return t
}

// row adds a row; cells lose control characters.
func (t *table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.t, "\t")
		}
		fmt.Fprint(t.t, status.Printable(fmt.Sprint(c)))
	}
	fmt.Fprint(t.t, "\n")
}

// String is the table so far.
func (t *table) String() string {
	t.t.Flush()
	return trimmed(t.b.String())
}

// trimmed takes the blanks off the ends of lines.
func trimmed(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

// printJSON prints v so that people can read it too.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// indented is text of perhaps several lines, those after the first behind
// some blanks, without control characters.
func indented(text, blanks string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(status.Printable(l), " ")
	}
	return strings.Join(lines, "\n"+blanks)
}

// short is the part of a container's id that people use.
func short(id string) string { return id[:min(len(id), 12)] }
