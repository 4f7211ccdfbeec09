// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/holdfast/holdfast/builder/show"
)

// markdown is the page docs/results/bench.md.
func (r *result) markdown(c config) string {
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	w("# Bench: bakes beside mkosi, and the first boot")
	w("")
	w("Made on %s by `go run ./qa/bench %s` on %s (load average at the end %s).", r.took.UTC().Format(time.DateOnly), strings.Join(os.Args[1:], " "), r.cpu, r.loaded)
	w("Medians of %d; runs of both sides took turns. Package caches are warm on both sides, and both run from a tools tree that", c.runs)
	w("is already made; nothing else is kept between cold runs. Scope: the same %d Debian packages to a disk that boots a signed", r.pkgs)
	w("kernel image into a squashfs root under dm-verity. Ours also holds the factory partition with the stack's images.")
	w("")
	b.WriteString(compare(r.rows))
	w("")
	w("## Apart, one run each")
	w("")
	w("| run | wall | processor time |")
	w("|---|---:|---:|")
	for _, row := range r.apart {
		w("| %s | %s s | %s s |", row.name, secs(row.wall()), secs(row.cpu()))
	}
	w("")
	w("## Steps")
	w("")
	w("Steps that do not wait for each other run side by side, so these add up to more than the whole. disk.raw is %s long, sparse.", show.Bytes(r.bytes))
	w("")
	w("| step | cold | only the stack changed | product |")
	w("|---|---:|---:|---:|")
	for i, s := range r.steps {
		size, again := "", ""
		if s.bytes > 0 {
			size = show.Bytes(s.bytes)
		}
		if i < len(r.stackSteps) {
			again = secs(r.stackSteps[i].wall()) + " s"
			if r.stackSteps[i].cached {
				again = "cached"
			}
		}
		w("| %s | %s s | %s | %s |", s.name, secs(s.wall()), again, size)
	}
	if len(r.boots) == 0 {
		return b.String()
	}
	w("")
	w("## First boot")
	w("")
	w("As the box reports it (`holdfast status --json`), in seconds since its kernel started; QEMU, 2 processors, 2 GiB, no network but the user one.")
	w("")
	w("| boot | daemon started | images loaded | stack healthy |")
	w("|---|---:|---:|---:|")
	for i, s := range r.boots {
		w("| %d | %.1f | %.1f | %.1f |", i+1, s.DaemonStarted, s.ImagesLoaded, s.StackHealthy)
	}
	return b.String()
}
