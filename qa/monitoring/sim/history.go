// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/exporter"
	"github.com/holdfast/holdfast/appliance/status"
)

// Instance and Job are the labels that Prometheus would give to the box.
const (
	Instance = "box1:4653"
	Job      = "holdfast"
)

// Config is an exporter of the box at the moment that now returns.
func (b Box) Config(now func() time.Time) exporter.Config {
	return exporter.Config{
		Version: "0.1.0", ContainerNames: true, Now: now,
		Report: func() status.Report { r, _, _ := b.At(now()); return r },
		Usage:  func(context.Context) (status.Usage, error) { _, u, _ := b.At(now()); return u, nil },
		Work:   func() status.Work { _, _, w := b.At(now()); return w },
	}
}

// History writes what Prometheus would have scraped between two moments, as
// OpenMetrics text that `promtool tsdb create-blocks-from openmetrics` reads.
func (b Box) History(w io.Writer, from, to time.Time, step time.Duration) error {
	now := from
	h := exporter.New(b.Config(func() time.Time { return now }))
	out := bufio.NewWriter(w)
	for ; !now.After(to); now = now.Add(step) {
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if answer.Code != http.StatusOK {
			return fmt.Errorf("scrape: %d %s", answer.Code, answer.Body)
		}
		lines := bufio.NewScanner(answer.Body)
		for lines.Scan() {
			if line := lines.Text(); !strings.HasPrefix(line, "#") {
				sample(out, line, now)
			}
		}
		sample(out, "up 1", now)
		if err := lines.Err(); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "# EOF")
	return out.Flush()
}

// sample writes one line with the labels of the target and the time.
func sample(w io.Writer, line string, at time.Time) {
	target := fmt.Sprintf("instance=%q,job=%q", Instance, Job)
	name, rest, labelled := strings.Cut(line, "{")
	if labelled && !strings.Contains(name, " ") {
		line = name + "{" + target + "," + rest
	} else {
		name, value, _ := strings.Cut(line, " ")
		line = name + "{" + target + "} " + value
	}
	fmt.Fprintf(w, "%s %d\n", line, at.Unix())
}
