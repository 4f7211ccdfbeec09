// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Table shows the budget as aligned text: who asks for how much, the largest
// first, the sums, the system's part and the machine.
func (b *Budget) Table() string { return b.table(nil) }

// SizeText writes bytes with three or four digits and a binary unit.
func SizeText(n int64) string {
	if n < 0 {
		return "-" + SizeText(-n)
	}
	for _, u := range []struct {
		unit int64
		name string
	}{{tib, "TiB"}, {gib, "GiB"}, {mib, "MiB"}, {kib, "KiB"}} {
		if n < u.unit {
			continue
		}
		v := float64(n) / float64(u.unit)
		switch {
		case n%u.unit == 0, v >= 999.5, u.unit < gib && v >= 99.95:
			return fmt.Sprintf("%.0f %s", v, u.name)
		case v >= 9.995:
			return fmt.Sprintf("%.1f %s", v, u.name)
		}
		return fmt.Sprintf("%.2f %s", v, u.name)
	}
	return fmt.Sprintf("%d B", n)
}

func cpuText(cores float64) string { return fmt.Sprintf("%.2f", cores) }

// table draws the rows; no adds what is missing.
func (b *Budget) table(no *Refused) string {
	rows := slices.Clone(b.Services)
	slices.SortStableFunc(rows, func(x, y Service) int {
		if no != nil && no.Memory == 0 && no.CPU > 0 {
			if c := cmp.Compare(y.Guaranteed.CPU, x.Guaranteed.CPU); c != 0 {
				return c
			}
		}
		return cmp.Or(cmp.Compare(y.Guaranteed.Memory, x.Guaranteed.Memory), cmp.Compare(y.Limit.Memory, x.Limit.Memory),
			cmp.Compare(y.Guaranteed.CPU, x.Guaranteed.CPU), cmp.Compare(x.Name, y.Name))
	})
	var text strings.Builder
	fmt.Fprintf(&text, "Budget of %s, size %s, on %v cpus and %s of memory", b.Stack, b.Size, round(b.Node.CPUs), SizeText(b.Node.Memory))
	if b.Node.Data > 0 {
		fmt.Fprintf(&text, ", %s for data", SizeText(b.Node.Data))
	}
	text.WriteString("\n\n")
	var lines [][]string
	row := func(cells ...string) { lines = append(lines, cells) }
	row("service", "class", "cpu", "at most", "memory", "at most", "pids")
	fromLimit := false
	for _, s := range rows {
		class, memory, limit := string(s.Class), SizeText(s.Guaranteed.Memory), "-"
		if s.OneShot {
			class += ", once"
		}
		if s.FromLimit {
			memory, fromLimit = "* "+memory, true
		}
		if s.Limit.CPU > 0 {
			limit = cpuText(s.Limit.CPU)
		}
		row(s.Name, class, cpuText(s.Guaranteed.CPU), limit, memory, SizeText(s.Limit.Memory), fmt.Sprint(s.Limit.Pids))
	}
	need, limits := b.guaranteed(), b.limits()
	lines = append(lines, nil)
	row("sum of the services", "", cpuText(round(need.CPU+b.Overlap.CPU)), cpuText(limits.CPU), SizeText(need.Memory+b.Overlap.Memory),
		SizeText(limits.Memory), fmt.Sprint(limits.Pids))
	if b.Overlap != (Amount{}) {
		row("  not at one time", "", cpuText(-b.Overlap.CPU), "", SizeText(-b.Overlap.Memory))
	}
	row("kept for the system", "", cpuText(b.Reserve.CPU), "", SizeText(b.Reserve.Memory))
	row("the machine", "", cpuText(b.Node.CPUs), "", SizeText(b.Node.Memory))
	row("limits may add up to", "", "", "", "", SizeText(b.mostLimits()))
	cpu, memory := round(b.Node.CPUs-need.CPU-b.Reserve.CPU), b.Node.Memory-need.Memory-b.Reserve.Memory
	if no == nil {
		row("free", "", cpuText(cpu), "", SizeText(memory))
	} else {
		row("missing", "", missing(no.CPU > 0, cpuText(-cpu)), "", missing(no.Memory > 0, SizeText(-memory)), missing(no.Limits > 0, SizeText(no.Limits)))
	}
	align(&text, lines)
	if fromLimit {
		text.WriteString("* no memory is reserved, so all of the limit is guaranteed\n")
	}
	if b.Overlap != (Amount{}) {
		text.WriteString("not at one time: what runs once has ended before those that wait for it start\n")
	}
	b.volumes(&text, no)
	return text.String()
}

func missing(is bool, text string) string {
	if is {
		return text
	}
	return "-"
}

// volumes adds the table of the disk budgets, if there are any.
func (b *Budget) volumes(text *strings.Builder, no *Refused) {
	sum, rest := b.disk()
	if sum == 0 {
		return
	}
	rows := slices.Clone(b.Volumes)
	slices.SortStableFunc(rows, func(x, y Volume) int { return cmp.Compare(y.Bytes, x.Bytes) })
	lines := [][]string{{"volume", "disk"}}
	for _, v := range rows {
		size := "shares the rest"
		if v.Bytes > 0 {
			size = SizeText(v.Bytes)
		}
		lines = append(lines, []string{v.Name, size})
	}
	lines = append(lines, nil, []string{"sum of the volumes", SizeText(sum)})
	if b.Node.Data > 0 {
		lines = append(lines, []string{"kept free", SizeText(b.DataReserve)}, []string{"the volume for data", SizeText(b.Node.Data)})
		if no != nil && no.Disk > 0 {
			lines = append(lines, []string{"missing", SizeText(no.Disk)})
		} else {
			lines = append(lines, []string{"left for the others", SizeText(b.Node.Data - sum - b.DataReserve)})
		}
	} else if rest > 0 {
		lines = append(lines, []string{"the volume for data", "not known"})
	}
	text.WriteString("\n")
	align(text, lines)
}

// align writes rows with the first two columns to the left and numbers to the
// right; a row without cells is a rule.
func align(to *strings.Builder, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], len(c))
		}
	}
	total := 0
	for _, w := range width {
		total += w + 2
	}
	for _, r := range rows {
		if r == nil {
			to.WriteString(strings.Repeat("-", total-2) + "\n")
			continue
		}
		var line strings.Builder
		for i, c := range r {
			pad := strings.Repeat(" ", width[i]-len(c))
			if i == 0 || i == 1 && len(rows[0]) > 2 {
				line.WriteString(c + pad + "  ")
			} else {
				line.WriteString(pad + c + "  ")
			}
		}
		to.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
