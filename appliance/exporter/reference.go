// SPDX-License-Identifier: Apache-2.0

package exporter

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Reference is the table of all metrics, in Markdown.
func Reference() string {
	var b strings.Builder
	b.WriteString("<!-- Made by `go generate ./appliance/exporter` from families.go. -->\n")
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, f := range families {
		kind := "gauge"
		if f.kind == prometheus.CounterValue {
			kind = "counter"
		}
		help := f.help
		if h, ok := strings.CutSuffix(help, " (histogram)."); ok {
			kind, help = "histogram", h+"."
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, kind, strings.Join(f.labels, ", "), help)
	}
	return b.String()
}
