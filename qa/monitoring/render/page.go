// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/holdfast/holdfast/monitoring/dashboards"
	"github.com/holdfast/holdfast/qa/monitoring/prom"
	"github.com/holdfast/holdfast/qa/monitoring/sim"
)

// page is one dashboard on its way to HTML.
type page struct {
	server   *prom.Server
	from, to time.Time
	// services are those that a repeated row is drawn for.
	services []string
	height   int
}

const (
	cell = 36 // height of a row of Grafana's grid in pixels
	gap  = 8
)

type box struct {
	Title      string
	X, Y, W, H int
	Body       template.HTML
	Row        bool
}

var frame = template.Must(template.New("").Parse(`<!doctype html><meta charset="utf-8"><title>{{.Title}}</title><style>
body{margin:0;background:#111217;color:#ccccdc;font:13px Inter,"DejaVu Sans",Arial,sans-serif}
h1{font-size:17px;margin:12px 16px 4px;font-weight:500}p{margin:0 16px;color:#8e8e9c;font-size:12px}
.p{position:absolute;background:#181b1f;border:1px solid #24272d;border-radius:3px;box-sizing:border-box;overflow:hidden}
.p>b{display:block;font-weight:500;padding:7px 10px 3px;height:18px;white-space:nowrap}
.r{position:absolute;font-size:15px;font-weight:500;padding:6px 2px}
table{border-collapse:collapse;width:100%;font-size:12px}td,th{text-align:left;padding:3px 10px;border-top:1px solid #24272d;white-space:nowrap}th{color:#8ab8ff;font-weight:500}td.n,th.n{text-align:right}
.l{padding:0 10px;font-size:11px;line-height:15px;color:#9d9fa8}.l i{display:inline-block;width:12px;height:3px;margin:0 5px 3px 9px;vertical-align:middle}
</style><h1>{{.Title}}</h1><p>{{.Text}}</p><div style="position:relative">{{range .Boxes}}{{if .Row}}<div class="r" style="left:{{.X}}px;top:{{.Y}}px">&#9662; {{.Title}}</div>{{else}}
<div class="p" style="left:{{.X}}px;top:{{.Y}}px;width:{{.W}}px;height:{{.H}}px"><b>{{.Title}}</b>{{.Body}}</div>{{end}}{{end}}</div>`))

// draw asks every query and returns the page.
func (p *page) draw(ctx context.Context, d dashboards.Dashboard) ([]byte, error) {
	var boxes []box
	y := gap
	for _, r := range d.Rows {
		services := []string{".*"}
		if r.Each {
			services = p.services
		}
		for _, s := range services {
			name := func(t string) string { return strings.ReplaceAll(t, "$service", s) }
			boxes = append(boxes, box{Title: name(r.Title), X: 16, Y: y, Row: true})
			y += cell
			places, high := r.Layout()
			for i, panel := range r.Panels {
				unit := float64(width-32) / 24
				b := box{Title: name(panel.Title), X: 16 + int(float64(places[i].X)*unit), Y: y + places[i].Y*cell, W: int(float64(panel.W)*unit) - gap, H: panel.H*cell - gap}
				body, err := p.panel(ctx, panel, s, b.W, b.H-28)
				if err != nil {
					return nil, fmt.Errorf("%s: %s: %w", d.UID, panel.Title, err)
				}
				b.Body = template.HTML(body)
				boxes = append(boxes, b)
			}
			y += high * cell
		}
	}
	p.height = y + 70
	var out bytes.Buffer
	err := frame.Execute(&out, map[string]any{"Title": d.Title, "Text": d.Description + "  " + sim.Instance + ", " + p.from.Format("15:04") + " to " + p.to.Format("15:04"), "Boxes": boxes})
	return out.Bytes(), err
}

// line is one series, drawn.
type line struct {
	name   string
	color  string
	dashed bool
	labels map[string]string
	query  int
	times  []float64
	values []float64
}

func (l line) last() float64 { return l.values[len(l.values)-1] }

func (p *page) panel(ctx context.Context, d dashboards.Panel, service string, w, h int) (string, error) {
	var all []line
	for i, q := range d.Queries {
		expr := strings.NewReplacer("$instance", sim.Instance, "$service", service).Replace(q.Expr)
		var found []prom.Sample
		var err error
		if d.Instant() {
			found, err = p.server.Query(ctx, expr, p.to)
		} else {
			found, err = p.server.Range(ctx, expr, p.from, p.to, time.Minute)
		}
		if err != nil {
			return "", err
		}
		for _, s := range found {
			color := hex(q.Color)
			if color == "" {
				color = palette[len(all)%len(palette)]
			}
			all = append(all, line{legend(q.Legend, s.Labels), color, q.Dashed, s.Labels, i, s.Times, s.Values})
		}
	}
	if len(all) == 0 {
		return fmt.Sprintf(`<div style="text-align:center;color:#6e7077;padding-top:%dpx">No data</div>`, h/2-10), nil
	}
	switch d.Kind {
	case dashboards.Stat:
		return stat(d, all[0].last(), w, h), nil
	case dashboards.Gauge:
		return gauge(d, all[0].last(), w, h), nil
	case dashboards.Bars:
		return bars(d, all, w, h), nil
	case dashboards.Table:
		return table(d, all), nil
	case dashboards.Timeline:
		return p.timeline(d, all, w, h), nil
	}
	return p.series(d, all, w, h), nil
}

var curly = regexp.MustCompile(`\{\{ *(\w+) *\}\}`)

func legend(format string, labels map[string]string) string {
	return template.HTMLEscapeString(curly.ReplaceAllStringFunc(format, func(m string) string { return labels[curly.FindStringSubmatch(m)[1]] }))
}

var palette = []string{"#73bf69", "#f2cc0c", "#8ab8ff", "#ff9830", "#f2495c", "#5794f2", "#b877d9", "#e0b400", "#96d98d", "#ffcb7d", "#ca95e5", "#37872d", "#fa6400", "#c4162a", "#1f60c4", "#8f3bb8"}

func hex(name string) string {
	if h, ok := map[string]string{"green": "#73bf69", "yellow": "#f2cc0c", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2", "purple": "#b877d9", "text": "#ccccdc"}[name]; ok {
		return h
	}
	return name
}

// colour of a value, and the word for it.
func paint(d dashboards.Panel, v float64) (color, text string) {
	for _, m := range d.Values {
		if float64(m.N) == math.Round(v) {
			return hex(m.Color), m.Text
		}
	}
	color = hex("green")
	for _, l := range d.Limits {
		if v >= l.At {
			color = hex(l.Color)
		}
	}
	return color, format(d.Unit, v)
}

// format writes a value as Grafana does.
func format(unit string, v float64) string {
	switch unit {
	case "percentunit":
		return trim(v*100) + "%"
	case "bytes":
		return scaled(v, 1024, []string{" B", " KiB", " MiB", " GiB", " TiB"})
	case "Bps":
		return scaled(v, 1000, []string{" B/s", " kB/s", " MB/s", " GB/s"})
	case "s":
		if v < 1 {
			return trim(v*1000) + " ms"
		}
		return trim(v) + " s"
	}
	return trim(v)
}

func scaled(v, base float64, names []string) string {
	i := 0
	for i < len(names)-1 && math.Abs(v) >= base {
		v, i = v/base, i+1
	}
	return trim(v) + names[i]
}

func trim(v float64) string {
	places := 2
	if math.Abs(v) < 0.1 {
		places = 3
	} else if math.Abs(v) >= 100 {
		places = 0
	} else if math.Abs(v) >= 10 {
		places = 1
	}
	s := fmt.Sprintf("%.*f", places, v)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
