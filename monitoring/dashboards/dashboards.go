// SPDX-License-Identifier: Apache-2.0

// Package dashboards holds the Grafana dashboards of a box as data, and makes
// the JSON files beside it from them (`go generate ./monitoring/dashboards`).
// The same data is what tests run against a real Prometheus, so a panel cannot
// ask for a metric that is not there. It knows nothing of a box but the names
// of its metrics.
package dashboards

//go:generate go test -run TestFiles -update .

import (
	"encoding/json"
	"fmt"
)

// Kind is how a panel draws, by Grafana's names.
type Kind string

// The kinds in use.
const (
	Stat     Kind = "stat"
	Series   Kind = "timeseries"
	Bars     Kind = "bargauge"
	Gauge    Kind = "gauge"
	Table    Kind = "table"
	Timeline Kind = "state-timeline"
)

// Dashboard is one page.
type Dashboard struct {
	UID, Title, Description string
	// PerService dashboards have a choice of services beside that of the box.
	PerService bool
	Rows       []Row
}

// Row is a line of panels under a heading.
type Row struct {
	Title string
	// Each repeats the row for every service that is chosen.
	Each   bool
	Panels []Panel
}

// Panel is one picture.
type Panel struct {
	Title, Description string
	Kind               Kind
	// W and H in Grafana's grid, 24 wide. Below puts a panel under the one
	// before it, not beside it.
	W, H  int
	Below bool
	// Right puts the legend there, for many series.
	Right bool
	// Unit by Grafana's names: "percentunit", "bytes", "Bps", "s", "short".
	Unit    string
	Queries []Query
	// Max of the axis, 0 for what the data asks for.
	Max float64
	// Stack puts series on top of each other; Steps draws bars.
	Stack, Steps bool
	// Limits are values from which on another colour is used.
	Limits []Limit
	// Values maps numbers to words and colours.
	Values []Value
	// Columns of a table, in order.
	Columns []Column
}

// Query asks Prometheus.
type Query struct {
	Expr, Legend string
	// Dashed lines are limits and guarantees; Color is fixed where not "".
	Dashed bool
	Color  string
	// Faults gives data only while something is wrong.
	Faults bool
}

// Limit is a threshold.
type Limit struct {
	At    float64
	Color string
}

// Value is what a number stands for.
type Value struct {
	N           int
	Text, Color string
}

// Column is one column of a table: a label of the result, or "Value #A" for
// the value of query A.
type Column struct{ Field, Title, Unit string }

// All dashboards.
func All() []Dashboard { return []Dashboard{overview(), services()} }

type obj = map[string]any

var source = obj{"type": "prometheus", "uid": "${ds}"}

// JSON is the file to import into Grafana 10 or newer.
func (d Dashboard) JSON() []byte {
	vars := []any{
		obj{"name": "ds", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0},
		variable("instance", "Box", "label_values(holdfast_generation, instance)", false),
	}
	if d.PerService {
		vars = append(vars, variable("service", "Service", `label_values(holdfast_service_ready{instance="$instance"}, service)`, true))
	}
	b, err := json.MarshalIndent(obj{
		"uid": d.UID, "title": d.Title, "description": d.Description, "tags": []string{"holdfast"},
		"schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1, "refresh": "30s",
		"time": obj{"from": "now-6h", "to": "now"}, "timezone": "", "annotations": obj{"list": []any{}},
		"links":      []any{obj{"type": "dashboards", "title": "Holdfast", "tags": []string{"holdfast"}, "asDropdown": false, "includeVars": true, "keepTime": true, "icon": "external link"}},
		"templating": obj{"list": vars}, "panels": d.panels(),
	}, "", "  ")
	if err != nil { // plain data
		panic(err)
	}
	return append(b, '\n')
}

func variable(name, label, query string, multi bool) obj {
	return obj{"name": name, "label": label, "type": "query", "datasource": source, "definition": query,
		"query": obj{"query": query, "refId": "variable"}, "refresh": 2, "sort": 1, "multi": multi, "includeAll": multi, "hide": 0}
}

func (d Dashboard) panels() []any {
	var out []any
	id, y := 0, 0
	for _, r := range d.Rows {
		id++
		row := obj{"id": id, "type": "row", "title": r.Title, "collapsed": false, "panels": []any{}, "gridPos": obj{"x": 0, "y": y, "w": 24, "h": 1}}
		if r.Each {
			row["repeat"] = "service"
		}
		out = append(out, row)
		y++
		places, high := r.Layout()
		for i, p := range r.Panels {
			id++
			out = append(out, p.json(id, places[i].X, y+places[i].Y))
		}
		y += high
	}
	return out
}

// Place is where the upper left corner of a panel lies in its row.
type Place struct{ X, Y int }

// Layout places the panels of a row, and says how high the row is.
func (r Row) Layout() (places []Place, high int) {
	x, y, next := 0, 0, 0 // of the panel, and the column after it
	top := 0
	for i, p := range r.Panels {
		switch {
		case p.Below && i > 0:
			y += r.Panels[i-1].H
		case next+p.W > 24:
			x, y, top = 0, high, high
			next = p.W
		default:
			x, y = next, top
			next += p.W
		}
		places = append(places, Place{x, y})
		high = max(high, y+p.H)
	}
	return places, high
}

func (p Panel) json(id, x, y int) obj {
	o := obj{"id": id, "type": string(p.Kind), "title": p.Title, "description": p.Description, "datasource": source,
		"gridPos": obj{"x": x, "y": y, "w": p.W, "h": p.H}, "targets": p.targets(),
		"fieldConfig": obj{"defaults": p.defaults(), "overrides": p.overrides()}, "options": p.options()}
	if p.Kind == Table {
		o["transformations"] = p.transformations()
	}
	return o
}

func (p Panel) targets() []any {
	var out []any
	for i, q := range p.Queries {
		t := obj{"refId": ref(i), "datasource": source, "expr": q.Expr, "legendFormat": q.Legend, "editorMode": "code"}
		if p.Instant() {
			t["instant"], t["range"] = true, false
		} else {
			t["instant"], t["range"] = false, true
		}
		if p.Kind == Table {
			t["format"] = "table"
		}
		out = append(out, t)
	}
	return out
}

// Instant panels show the newest values, the others a time range.
func (p Panel) Instant() bool { return p.Kind != Series && p.Kind != Timeline }

func ref(i int) string { return string(rune('A' + i)) }

func (p Panel) defaults() obj {
	steps := []any{obj{"color": "green", "value": nil}}
	if p.Kind == Series && len(p.Limits) == 0 {
		steps = []any{obj{"color": "text", "value": nil}}
	}
	for _, l := range p.Limits {
		steps = append(steps, obj{"color": l.Color, "value": l.At})
	}
	d := obj{"unit": p.Unit, "thresholds": obj{"mode": "absolute", "steps": steps}, "color": obj{"mode": "thresholds"}, "custom": obj{}}
	if p.Kind != Table {
		d["min"] = 0
	}
	if p.Max > 0 {
		d["max"] = p.Max
	}
	if len(p.Values) > 0 {
		m := obj{}
		for i, v := range p.Values {
			m[fmt.Sprint(v.N)] = obj{"text": v.Text, "color": v.Color, "index": i}
		}
		d["mappings"] = []any{obj{"type": "value", "options": m}}
	}
	switch p.Kind {
	case Series:
		d["color"] = obj{"mode": "palette-classic"}
		custom := obj{"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": false, "axisSoftMin": 0}
		if p.Stack {
			custom["stacking"], custom["fillOpacity"] = obj{"mode": "normal", "group": "A"}, 40
		}
		if p.Steps {
			custom["drawStyle"], custom["fillOpacity"] = "bars", 80
		}
		d["custom"] = custom
	case Timeline:
		d["custom"] = obj{"fillOpacity": 85, "lineWidth": 0}
	case Table:
		d["custom"] = obj{"align": "auto", "filterable": true}
	}
	return d
}

func (p Panel) overrides() []any {
	out := []any{}
	if p.Kind == Table {
		for _, c := range p.Columns {
			if c.Unit != "" {
				out = append(out, obj{"matcher": obj{"id": "byName", "options": c.Title}, "properties": []any{obj{"id": "unit", "value": c.Unit}}})
			}
		}
		return out
	}
	for i, q := range p.Queries {
		var props []any
		if q.Dashed {
			props = append(props, obj{"id": "custom.lineStyle", "value": obj{"fill": "dash", "dash": []int{8, 6}}},
				obj{"id": "custom.fillOpacity", "value": 0}, obj{"id": "custom.stacking", "value": obj{"mode": "none", "group": "B"}})
		}
		if q.Color != "" {
			props = append(props, obj{"id": "color", "value": obj{"mode": "fixed", "fixedColor": q.Color}})
		}
		if props != nil {
			out = append(out, obj{"matcher": obj{"id": "byFrameRefID", "options": ref(i)}, "properties": props})
		}
	}
	return out
}

func (p Panel) options() obj {
	last := obj{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}
	switch p.Kind {
	case Stat:
		return obj{"reduceOptions": last, "colorMode": "background", "graphMode": "none", "textMode": "value", "justifyMode": "center"}
	case Gauge:
		return obj{"reduceOptions": last, "showThresholdMarkers": true}
	case Bars:
		return obj{"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic", "valueMode": "color", "showUnfilled": true}
	case Timeline:
		return obj{"mergeValues": true, "showValue": "never", "rowHeight": 0.85, "alignValue": "left", "legend": obj{"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": obj{"mode": "single"}}
	case Table:
		return obj{"showHeader": true, "cellHeight": "sm"}
	}
	side := "bottom"
	if p.Right {
		side = "right"
	}
	return obj{"legend": obj{"displayMode": "list", "placement": side, "showLegend": true}, "tooltip": obj{"mode": "multi", "sort": "desc"}}
}

// transformations join the queries of a table by their labels and keep the
// columns that are wanted.
func (p Panel) transformations() []any {
	index, names, keep := obj{}, obj{}, []string{}
	for i, c := range p.Columns {
		index[c.Field], names[c.Field] = i, c.Title
		keep = append(keep, c.Field)
	}
	return []any{
		obj{"id": "merge", "options": obj{}},
		obj{"id": "filterFieldsByName", "options": obj{"include": obj{"names": keep}}},
		obj{"id": "organize", "options": obj{"indexByName": index, "renameByName": names, "excludeByName": obj{}}},
	}
}
