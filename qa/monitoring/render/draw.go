// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/monitoring/dashboards"
)

func stat(d dashboards.Panel, v float64, w, h int) string {
	color, text := paint(d, v)
	return fmt.Sprintf(`<div style="background:%s;color:#111217;height:%dpx;line-height:%dpx;text-align:center;font-size:38px;font-weight:600;margin-top:2px">%s</div>`, color, h, h, text)
}

// gauge is an arc of three quarters of a circle.
func gauge(d dashboards.Panel, v float64, w, h int) string {
	color, text := paint(d, v)
	cx, cy, r := float64(w)/2, float64(h)*0.6, math.Min(float64(h)*0.5, float64(w)*0.4)
	arc := func(share float64, stroke string, wide int, radius float64) string {
		a0, a1 := math.Pi*1.0, math.Pi*(1.0+math.Max(0.001, math.Min(1, share)))
		return fmt.Sprintf(`<path d="M%.1f %.1f A%.1f %.1f 0 0 1 %.1f %.1f" fill="none" stroke="%s" stroke-width="%d"/>`,
			cx+radius*math.Cos(a0), cy+radius*math.Sin(a0), radius, radius, cx+radius*math.Cos(a1), cy+radius*math.Sin(a1), stroke, wide)
	}
	return fmt.Sprintf(`<svg width="%d" height="%d">%s%s<text x="%.0f" y="%.0f" fill="%s" font-size="26" font-weight="600" text-anchor="middle">%s</text></svg>`, w, h,
		arc(1, "#2c3036", 20, r-12), arc(v/d.Max, color, 20, r-12), cx, cy-2, color, text)
}

func bars(d dashboards.Panel, all []line, w, h int) string {
	slices.SortStableFunc(all, func(a, b line) int { return cmp.Compare(b.last(), a.last()) })
	step := math.Min(30, float64(h-8)/float64(len(all)))
	const left, right = 190, 62
	var b strings.Builder
	fmt.Fprintf(&b, `<svg width="%d" height="%d" font-size="11.5">`, w, h)
	for i, l := range all {
		color, text := paint(d, l.last())
		y := float64(i)*step + 4
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" fill="#ccccdc" text-anchor="end">%s</text><rect x="%d" y="%.1f" width="%d" height="%.1f" fill="#22252b"/><rect x="%d" y="%.1f" width="%.1f" height="%.1f" fill="%s"/><text x="%d" y="%.1f" fill="%s">%s</text>`,
			left-8, y+step*0.62, l.name, left, y, w-left-right, step*0.8, left, y, math.Min(1, l.last()/d.Max)*float64(w-left-right), step*0.8, color, w-right+8, y+step*0.62, color, text)
	}
	return b.String() + "</svg>"
}

// table joins the answers by their labels, as Grafana's merge does.
func table(d dashboards.Panel, all []line) string {
	type row struct {
		labels map[string]string
		values map[string]float64
	}
	rows := map[string]*row{}
	for _, l := range all {
		key := l.labels["service"] + "\x00" + l.labels["code"]
		if rows[key] == nil {
			rows[key] = &row{map[string]string{}, map[string]float64{}}
		}
		for k, v := range l.labels {
			rows[key].labels[k] = v
		}
		rows[key].values["Value #"+string(rune('A'+l.query))] = l.last()
		rows[key].values["Value"] = l.last()
	}
	var b strings.Builder
	b.WriteString("<table><tr>")
	for _, c := range d.Columns {
		fmt.Fprintf(&b, `<th%s>%s</th>`, numeric(c), c.Title)
	}
	for _, key := range slices.Sorted(mapKeys(rows)) {
		b.WriteString("</tr><tr>")
		for _, c := range d.Columns {
			text := rows[key].labels[c.Field]
			if v, ok := rows[key].values[c.Field]; ok {
				text = format(c.Unit, v)
			}
			fmt.Fprintf(&b, `<td%s>%s</td>`, numeric(c), text)
		}
	}
	return b.String() + "</tr></table>"
}

func numeric(c dashboards.Column) string {
	if strings.HasPrefix(c.Field, "Value") {
		return ` class="n"`
	}
	return ""
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (p *page) x(t float64, left, w int) float64 {
	return float64(left) + (t-float64(p.from.Unix()))/p.to.Sub(p.from).Seconds()*float64(w)
}

func (p *page) hours(left, w, y int) string {
	var b strings.Builder
	for t := p.from.Truncate(time.Hour).Add(time.Hour); t.Before(p.to); t = t.Add(time.Hour) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#9d9fa8">%s</text>`, p.x(float64(t.Unix()), left, w), y, t.Format("15:04"))
	}
	return b.String()
}

func (p *page) timeline(d dashboards.Panel, all []line, w, h int) string {
	left, right := 190, 14
	h -= 24
	bottom := 18
	step := float64(h-bottom) / float64(len(all))
	var b strings.Builder
	fmt.Fprintf(&b, `<svg width="%d" height="%d" font-size="11.5">`, w, h)
	used := map[string]string{}
	for i, l := range all {
		y := float64(i) * step
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" fill="#ccccdc" text-anchor="end">%s</text>`, left-8, y+step*0.65, l.name)
		for j := 0; j < len(l.values); {
			k := j
			for k+1 < len(l.values) && l.values[k+1] == l.values[j] {
				k++
			}
			color, text := paint(d, l.values[j])
			used[text] = color
			x0, x1 := p.x(l.times[j], left, w-left-right), p.x(l.times[min(k+1, len(l.times)-1)], left, w-left-right)
			fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, x0, y+step*0.08, math.Max(1, x1-x0), step*0.84, color)
			j = k + 1
		}
	}
	b.WriteString(p.hours(left, w-left-right, h-4) + `</svg><div class="l">`)
	for _, v := range d.Values {
		if used[v.Text] != "" {
			fmt.Fprintf(&b, `<i style="background:%s;height:9px"></i>%s`, hex(v.Color), v.Text)
		}
	}
	return b.String() + "</div>"
}

func (p *page) series(d dashboards.Panel, all []line, w, h int) string {
	legendLines := min(3, 1+len(all)*130/w)
	left, right, top, bottom := 62, 12, 8, 20
	if d.Right {
		right = 190
	} else {
		h -= 15*legendLines + 6
	}
	high := 0.0
	stacked := map[float64]float64{}
	base := make([][]float64, len(all))
	for i, l := range all {
		for j, v := range l.values {
			low := 0.0
			if d.Stack && !l.dashed {
				low = stacked[l.times[j]]
				stacked[l.times[j]] = low + v
			}
			base[i] = append(base[i], low)
			high = math.Max(high, low+v)
		}
	}
	if d.Max > 0 {
		high = d.Max
	}
	high, ticks := scale(high, d.Unit)
	yOf := func(v float64) float64 { return float64(h-bottom) - v/high*float64(h-bottom-top) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg width="%d" height="%d" font-size="11">`, w, h)
	for i := range ticks + 1 {
		v := high * float64(i) / float64(ticks)
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#24272d"/><text x="%d" y="%.1f" text-anchor="end" fill="#9d9fa8">%s</text>`, left, w-right, yOf(v), yOf(v), left-6, yOf(v)+4, format(d.Unit, v))
	}
	for i, l := range all {
		if d.Steps {
			wide := float64(w-left-right) / p.to.Sub(p.from).Minutes()
			for j, v := range l.values {
				fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" fill-opacity="0.8"/>`, p.x(l.times[j], left, w-left-right)-wide/2, yOf(base[i][j]+v), wide, yOf(base[i][j])-yOf(base[i][j]+v), l.color)
			}
			continue
		}
		for _, part := range parts(l) {
			var up, down []string
			for j := part[0]; j < part[1]; j++ {
				x := p.x(l.times[j], left, w-left-right)
				up = append(up, fmt.Sprintf("%.1f,%.1f", x, yOf(base[i][j]+l.values[j])))
				down = append(down, fmt.Sprintf("%.1f,%.1f", x, yOf(base[i][j])))
			}
			dash, fill := "", 0.08
			if d.Stack {
				fill = 0.4
			}
			if l.dashed {
				dash, fill = ` stroke-dasharray="8 6"`, 0
			}
			slices.Reverse(down)
			fmt.Fprintf(&b, `<polygon points="%s %s" fill="%s" fill-opacity="%.2f"/><polyline points="%s" fill="none" stroke="%s" stroke-width="1.3"%s/>`, strings.Join(up, " "), strings.Join(down, " "), l.color, fill, strings.Join(up, " "), l.color, dash)
		}
	}
	if d.Right {
		for i, l := range all {
			step := math.Min(15, float64(h-20)/float64(len(all)))
			fmt.Fprintf(&b, `<rect x="%d" y="%.1f" width="12" height="3" fill="%s"/><text x="%d" y="%.1f" fill="#9d9fa8">%s</text>`, w-right+10, 12+step*float64(i), l.color, w-right+28, 16+step*float64(i), l.name)
		}
		return b.String() + p.hours(left, w-left-right, h-4) + "</svg>"
	}
	b.WriteString(p.hours(left, w-left-right, h-4) + fmt.Sprintf(`</svg><div class="l" style="height:%dpx;overflow:hidden">`, 15*legendLines))
	for _, l := range all {
		fmt.Fprintf(&b, `<i style="background:%s"></i>%s`, l.color, l.name)
	}
	return b.String() + "</div>"
}

// parts are the runs of a series without a hole.
func parts(l line) [][2]int {
	var out [][2]int
	from := 0
	for j := 1; j <= len(l.times); j++ {
		if j == len(l.times) || l.times[j]-l.times[j-1] > 90 {
			out = append(out, [2]int{from, j})
			from = j
		}
	}
	return out
}

// scale is a round number above v, and in how many parts to divide it.
func scale(v float64, unit string) (float64, int) {
	if v <= 0 {
		return 1, 4
	}
	base := 10.0
	unitScale := 1.0
	if unit == "bytes" {
		for v/unitScale >= 1024 {
			unitScale *= 1024
		}
	}
	v /= unitScale
	p := math.Pow(base, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10} {
		if m*p >= v*0.999 {
			parts := 4
			switch m {
			case 1.5, 3, 6:
				parts = 3
			case 1, 2.5, 5, 10:
				parts = 5
			}
			return m * p * unitScale, parts
		}
	}
	return v * unitScale, 4
}
