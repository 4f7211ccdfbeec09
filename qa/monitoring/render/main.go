// SPDX-License-Identifier: Apache-2.0

// Command render draws the dashboards of monitoring/dashboards as Grafana
// would, out of a real Prometheus that holds six hours of a simulated box: an
// HTML page for each, and a picture where chromium is there. It is for looking
// at what the queries show, where no Grafana is at hand.
//
//	HOLDFAST_TOOLS=... go run ./qa/monitoring/render -out /tmp/pictures
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"github.com/holdfast/holdfast/monitoring/dashboards"
	"github.com/holdfast/holdfast/qa/monitoring/prom"
	"github.com/holdfast/holdfast/qa/monitoring/sim"
)

func main() {
	out := flag.String("out", "build/dashboards", "the folder to write to")
	hours := flag.Float64("hours", 6, "how much of the box's life to show")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, *hours); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, hours float64) error {
	tools, err := prom.Find()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "holdfast-render-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	to := time.Now().Truncate(time.Minute)
	from := to.Add(-time.Duration(hours * float64(time.Hour)))
	history := filepath.Join(dir, "history.om")
	f, err := os.Create(history)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := (sim.Box{Start: from, Hours: hours}).History(f, from, to, time.Minute); err != nil {
		return err
	}
	if _, err := tools.Promtool(ctx, nil, "tsdb", "create-blocks-from", "openmetrics", history, filepath.Join(dir, "data")); err != nil {
		return err
	}
	server, err := tools.Start(ctx, dir, "scrape_configs: []\n")
	if err != nil {
		return err
	}
	defer server.Stop()
	for _, d := range dashboards.All() {
		p := &page{server: server, from: from, to: to, services: []string{"pgsql", "worker"}}
		html, err := p.draw(ctx, d)
		if err != nil {
			return err
		}
		file := filepath.Join(out, d.UID+".html")
		if err := os.WriteFile(file, html, 0o644); err != nil {
			return err
		}
		fmt.Println(file)
		if err := picture(ctx, file, filepath.Join(out, d.UID+".png"), p.height); err != nil {
			fmt.Fprintln(os.Stderr, "no picture:", err)
		}
	}
	return nil
}

// width of a page in pixels.
const width = 1680

func picture(ctx context.Context, html, png string, height int) error {
	path, err := filepath.Abs(html)
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--screenshot="+png,
		"--window-size="+strconv.Itoa(width)+","+strconv.Itoa(height), "file://"+path)
	if b, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, b)
	}
	fmt.Println(png)
	return nil
}
