// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// bar is part of whole in so many characters, with a mark where there is one.
func bar(part, mark, whole float64, width int) string {
	if width < 3 || whole <= 0 {
		return ""
	}
	full := int(math.Round(math.Min(1, math.Max(0, part/whole)) * float64(width)))
	if full == 0 && part > whole/1000 {
		full = 1 // something is not nothing
	}
	cells := []byte(strings.Repeat("#", full) + strings.Repeat(".", width-full))
	if mark > 0 && mark < whole {
		cells[min(width-1, int(mark/whole*float64(width)))] = '|'
	}
	return "[" + string(cells) + "]"
}

// sizeText is a size in bytes in at most seven characters: "512 MiB".
func sizeText(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for ; n >= 999.5 && i < len(units)-1; i++ {
		n /= 1024
	}
	if i > 0 && n < 9.95 {
		return fmt.Sprintf("%.1f %s", n, units[i])
	}
	return fmt.Sprintf("%.0f %s", n, units[i])
}

// topLines is a whole frame for people, at most so many columns wide as far as
// that goes.
func topLines(t status.Top, r status.Report, columns int) []string {
	head := strings.TrimSpace(r.Release.Name + " " + r.Release.Version)
	if r.Hostname != "" {
		head = strings.TrimSpace(head + " on " + r.Hostname)
	}
	if head != "" {
		head += ": "
	}
	head += t.Stack
	if t.Size != "" {
		head += ", size " + t.Size
	}
	lines := []string{head + ", " + t.Time.UTC().Format(time.TimeOnly) + " UTC", ""}
	lines = append(lines, nodeLines(t.Node, columns)...)
	lines = append(lines, "")
	// What matters least goes first, bars last.
	few := []string{"CLASS", "VOLUMES", "READ", "WRITE", "THROTTLED", "STATE", "PIDS"}
	for _, p := range []struct {
		bar  int
		drop []string
	}{{16, nil}, {10, nil}, {8, few[:1]}, {8, few[:2]}, {8, few[:4]}, {8, few[:5]}, {8, few[:6]}, {6, few}, {0, few}} {
		rows := serviceRows(t, p.bar, p.drop)
		if len([]rune(rows[0])) <= columns || p.bar == 0 {
			rows[0] = strings.TrimRight(rows[0], " ")
			return append(lines, rows...)
		}
	}
	return lines
}

func nodeLines(n status.TopNode, columns int) []string {
	width := min(30, max(0, columns-68))
	t := newTable()
	cpu := fmt.Sprintf("%s of %s cores", coresText(n.CPU), trimFloat(n.CPUs))
	if n.CPUGuaranteed > 0 {
		cpu += fmt.Sprintf(", guaranteed %s, system %s", trimFloat(n.CPUGuaranteed), trimFloat(n.CPUReserve))
	}
	t.row("cpu", bar(known(n.CPU), n.CPUGuaranteed, n.CPUs, width), cpu)
	memory := fmt.Sprintf("%s of %s", sizeText(float64(n.Memory)), sizeText(float64(n.MemoryTotal)))
	if n.MemoryGuaranteed > 0 {
		memory += fmt.Sprintf(", guaranteed %s, system %s", sizeText(float64(n.MemoryGuaranteed)), sizeText(float64(n.MemoryReserve)))
	}
	t.row("memory", bar(float64(n.Memory), float64(n.MemoryGuaranteed), float64(n.MemoryTotal), width), memory)
	for _, d := range n.Disks {
		t.row("disk "+d.Name, bar(float64(d.Used), 0, float64(d.Total), width), diskText(d))
	}
	if p := n.Pressure; p != nil {
		t.row("pressure", "", fmt.Sprintf("waiting for cpu %s, memory %s, disk %s of the time", percent(p.CPUSome), percent(p.MemorySome), percent(p.IOSome)))
	}
	return strings.Split(strings.TrimRight(t.String(), "\n"), "\n")
}

func percent(share float64) string { return fmt.Sprintf("%.0f%%", share*100) }

func coresText(v *float64) string {
	if v == nil {
		return "?"
	}
	return fmt.Sprintf("%.2f", *v)
}

// trimFloat is a number of at most two decimals.
func trimFloat(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}

func diskText(d status.DiskUsage) string {
	used := sizeText(float64(d.Used))
	if d.Unknown {
		used = "?"
	}
	if d.Total <= 0 {
		return used
	}
	return used + " of " + sizeText(float64(d.Total))
}

// column is one of the table, with its width once rows are there.
type column struct {
	name  string
	right bool
	cell  func(status.TopService) string
}

func serviceRows(t status.Top, width int, drop []string) []string {
	dashed := func(f func(status.TopService) string) func(status.TopService) string {
		return func(s status.TopService) string {
			if !s.Measured {
				return "-"
			}
			return f(s)
		}
	}
	rateText := func(get func(status.TopService) *float64) func(status.TopService) string {
		return dashed(func(s status.TopService) string {
			if v := get(s); v != nil {
				return sizeText(*v) + "/s"
			}
			return "?"
		})
	}
	columns := []column{
		{"SERVICE", false, func(s status.TopService) string { return s.Service }},
		{"STATE", false, func(s status.TopService) string { return s.State }},
		{"CLASS", false, func(s status.TopService) string { return orDash(s.Class) }},
		{"CPU", false, func(s status.TopService) string { return cpuCell(s, t.Node.CPUs, width) }},
		{"THROTTLED", true, dashed(func(s status.TopService) string {
			if s.Throttled == nil {
				return "?"
			}
			return percent(*s.Throttled)
		})},
		{"MEMORY", false, func(s status.TopService) string { return memoryCell(s, t.Node.MemoryTotal, width) }},
		{"PIDS", true, dashed(func(s status.TopService) string { return ofLimit(s.Pids, s.PidsLimit) })},
		{"READ", true, rateText(func(s status.TopService) *float64 { return s.IORead })},
		{"WRITE", true, rateText(func(s status.TopService) *float64 { return s.IOWritten })},
		{"VOLUMES", false, volumesCell},
	}
	var rows [][]string
	widths := make([]int, len(columns))
	for i := -1; i < len(t.Services); i++ {
		var row []string
		for c, col := range columns {
			text := col.name
			if i >= 0 {
				text = status.Printable(col.cell(t.Services[i]))
			}
			row = append(row, text)
			widths[c] = max(widths[c], len([]rune(text)))
		}
		rows = append(rows, row)
	}
	var out []string
	for _, row := range rows {
		var b strings.Builder
		for c, text := range row {
			if contains(drop, columns[c].name) {
				continue
			}
			pad := strings.Repeat(" ", widths[c]-len([]rune(text)))
			if columns[c].right {
				text = pad + text
			} else {
				text += pad
			}
			b.WriteString(text + "  ")
		}
		out = append(out, b.String())
	}
	// The first is as wide as all; the caller measures it.
	for i := range out {
		if i > 0 {
			out[i] = strings.TrimRight(out[i], " ")
		}
	}
	out[0] = strings.TrimSuffix(out[0], "  ")
	return out
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func ofLimit(n, limit int64) string {
	if limit <= 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d/%d", n, limit)
}

// cpuCell is in percent of one core, as top(1) has it.
func cpuCell(s status.TopService, cpus float64, width int) string {
	if !s.Measured {
		return "-"
	}
	whole, limit := s.CPULimit, ""
	if whole <= 0 {
		whole = cpus
	} else {
		limit = fmt.Sprintf(" of %.0f%%", whole*100)
	}
	text := "   ?"
	if s.CPU != nil {
		text = fmt.Sprintf("%3.0f%%", *s.CPU*100)
	}
	return strings.TrimLeft(bar(known(s.CPU), s.CPUGuaranteed, whole, width)+" ", " ") + text + limit
}

func memoryCell(s status.TopService, total int64, width int) string {
	if !s.Measured {
		return "-"
	}
	whole, limit := s.MemoryLimit, ""
	if whole <= 0 {
		whole = total
	} else {
		limit = " of " + sizeText(float64(whole))
	}
	text := fmt.Sprintf("%8s", sizeText(float64(s.Memory))) + limit
	if s.OOMKills > 0 {
		text += fmt.Sprintf(", %d killed", s.OOMKills)
	}
	return strings.TrimLeft(bar(float64(s.Memory), float64(s.MemoryGuaranteed), float64(whole), width)+" ", " ") + text
}

func volumesCell(s status.TopService) string {
	var parts []string
	for _, v := range s.Volumes {
		parts = append(parts, v.Name+" "+diskText(v))
	}
	return strings.Join(parts, ", ")
}
