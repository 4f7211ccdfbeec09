// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast/holdfast/qa/powercut"
)

// Limits of the bytes of an upgrade, as shares of the full release and of the
// root image.
const (
	limitSecurity = 0.12
	limitStack    = 0.03
	limitLibs     = 0.025
	limitKernel   = 0.30
	limitMemory   = 64 << 20
	limitWrite    = 0.8
)

// upgradeResult is all that -upgrade measures.
type upgradeResult struct {
	pairs []*pair
	write writeSpeed
	diff  string
}

// pair is an upgrade from one release to another.
type pair struct {
	name, about string
	from, to    *baked
	// limit on all bytes, limitRoot on those of the root; 0 for none.
	limit, limitRoot float64
	// ours is what prepare fetched, by part; memory its peak in bytes.
	ours   fetchedBytes
	memory int64
	// casync and rauc are their bytes for the root image.
	casync16, casync64 peerBytes
	rauc               peerBytes
}

// benchUpgrade counts the bytes of upgrades on real pairs of releases, beside
// casync's and RAUC's on the same images, and how fast a slot is written.
func benchUpgrade(ctx context.Context, c config, cache, dir string) (missed bool, err error) {
	dir = filepath.Join(dir, "upgrade")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	b, err := newBaker(ctx, c, cache, dir, say)
	if err != nil {
		return false, err
	}
	libs, err := b.release(ctx, "libs", "1.0.0", false)
	if err != nil {
		return false, err
	}
	kernel, err := b.release(ctx, "kernel", "1.0.0", false)
	if err != nil {
		return false, err
	}
	base, err := b.release(ctx, "new", "1.0.0", false)
	if err != nil {
		return false, err
	}
	next, err := b.release(ctx, "new", "1.0.1", true)
	if err != nil {
		return false, err
	}
	tree, err := deltaTree(ctx, dir, say)
	if err != nil {
		return false, err
	}
	r := &upgradeResult{pairs: []*pair{
		{name: "three libraries and one service image", about: "a security update of " + b.names("libs"), from: libs, to: next, limit: limitSecurity, limitRoot: limitLibs},
		{name: "one service image", about: "the packages are the same", from: base, to: next, limit: limitStack},
		{name: "14 packages with a kernel and one service image", about: b.names("kernel"), from: kernel, to: next, limitRoot: limitKernel},
	}}
	for _, p := range r.pairs {
		say("measuring: %s", p.name)
		if err := p.measure(ctx, dir, powercut.Programs{tree}); err != nil {
			return false, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	say("writing a slot")
	if r.write, err = measureWrite(ctx, dir, next, c.runs); err != nil {
		return false, err
	}
	// The vendor's own forecast of the same, to be held beside it.
	said, err := exec.CommandContext(ctx, filepath.Join(c.root, "build/bin/holdfast-release"), "diff", filepath.Dir(libs.layout), filepath.Dir(next.layout)).Output()
	if err != nil {
		return false, fmt.Errorf("holdfast-release diff: %w", err)
	}
	r.diff = string(said)
	text := r.markdown(c)
	fmt.Print(text)
	return r.missed(), os.WriteFile(filepath.Join(c.root, "docs/results/bench-upgrade.md"), []byte(text), 0o644)
}

func (r *upgradeResult) missed() bool {
	for _, p := range r.pairs {
		if p.limit > 0 && p.share() > p.limit || p.memory > limitMemory {
			return true
		}
		if p.limitRoot > 0 && p.rootShare() > p.limitRoot {
			return true
		}
		if p.from.root != p.to.root && (p.root().bytes() > p.casync64.bytes() || p.root().bytes() > p.rauc.bytes()) {
			return true
		}
	}
	return r.write.ratio() < limitWrite
}

// share is our bytes of the whole release's.
func (p *pair) share() float64 { return float64(p.ours.all) / float64(p.to.full) }

// root is our bytes for the root, with its chunk index, which is fetched whole.
func (p *pair) root() peerBytes { return peerBytes{p.ours.root(), p.to.desc.Parts.RootChunks.Size} }

func (p *pair) rootShare() float64 { return float64(p.root().bytes()) / float64(p.to.rootSize) }

// markdown is the page docs/results/bench-upgrade.md.
func (r *upgradeResult) markdown(c config) string {
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	mb := func(n int64) string { return fmt.Sprintf("%.2f MB", float64(n)/1e6) }
	verdict := func(share, limit float64) string {
		switch {
		case limit == 0:
			return fmt.Sprintf("%.2f %%", share*100)
		case share > limit:
			return fmt.Sprintf("%.2f %%, **more than %.1f %%**", share*100, limit*100)
		}
		return fmt.Sprintf("%.2f %% (at most %.1f %%)", share*100, limit*100)
	}
	w("# Bench: the bytes of an upgrade")
	w("")
	w("Made on %s by `go run ./qa/bench %s` on %s. Bytes are exact and do not vary from run to run.", time.Now().UTC().Format(time.DateOnly), strings.Join(os.Args[1:], " "), cpuModel())
	w("The releases are bakes of the demo from real Debian 13 packages: those of the last point release, and the security updates of them.")
	w("Ours is what `appliance/prepare` fetched from a folder into an empty slot and an empty state, with the old release's slot, kernel image and factory at hand.")
	w("")
	w("| upgrade | full release | fetched | share | peak memory |")
	w("|---|---:|---:|---:|---:|")
	for _, p := range r.pairs {
		w("| %s | %s | %s | %s | %.1f MiB |", p.name, mb(p.to.full), mb(p.ours.all), verdict(p.share(), p.limit), float64(p.memory)/(1<<20))
	}
	w("")
	for _, p := range r.pairs {
		w("* %s: %s.", p.name, p.about)
	}
	w("")
	w("## By part")
	w("")
	w("The description is manifest, description, chunk indexes, stack and bill of materials. Parts of which nothing came are left out.")
	w("")
	w("| upgrade | part | size | fetched |")
	w("|---|---|---:|---:|")
	for _, p := range r.pairs {
		for _, part := range p.ours.parts {
			w("| %s | %s | %s | %s |", p.name, part.name, mb(part.size), mb(part.fetched))
		}
	}
	w("")
	w("## The root image alone, beside others")
	w("")
	w("All on the same two squashfs images; content + index. casync: `casync make --store`, the files of chunks that the old image's store has not,")
	w("and the index. Its chunks are compressed, ours are not: squashfs is. RAUC 1.13, adaptive updates with block-hash-index: the bytes of the 4 KiB blocks that the old image has nowhere, and its index of 32 bytes a block; counted, not run.")
	w("")
	w("| upgrade | root image | Holdfast | casync, 16 KiB chunks | casync, 64 KiB (its default) | RAUC block-hash-index |")
	w("|---|---:|---:|---:|---:|---:|")
	for _, p := range r.pairs {
		if p.from.root == p.to.root {
			continue
		}
		of := func(n peerBytes) string {
			return fmt.Sprintf("%s + %s, %.2f %%", mb(n.chunks), mb(n.index), 100*float64(n.bytes())/float64(p.to.rootSize))
		}
		w("| %s | %s | %s + %s, %s | %s | %s | %s |", p.name, mb(p.to.rootSize), mb(p.root().chunks), mb(p.root().index), verdict(p.rootShare(), p.limitRoot), of(p.casync16), of(p.casync64), of(p.rauc))
	}
	w("")
	w("## What the vendor is told before")
	w("")
	w("`holdfast-release diff` of the first pair, from the two chunk indexes alone:")
	w("")
	w("```")
	b.WriteString(r.diff)
	w("```")
	w("")
	w("## Writing a slot")
	w("")
	w("The whole root from a folder on the same disk into a file, nothing reused, weights off; medians of %d, taking turns. Ours also cuts, hashes and compares each byte, and flushes.", c.runs)
	w("")
	w("| | time | speed |")
	w("|---|---:|---:|")
	w("| `dd bs=1M conv=fsync` | %.2f s | %.0f MB/s |", r.write.dd.Seconds(), float64(r.write.size)/1e6/r.write.dd.Seconds())
	w("| Holdfast, until the last byte is on the disk | %.2f s | %.0f MB/s, %.2f x (at least %.1f x) |", r.write.ours.Seconds(), float64(r.write.size)/1e6/r.write.ours.Seconds(), r.write.ratio(), limitWrite)
	w("")
	w("## Again")
	w("")
	w("`go run ./qa/bench -upgrade -archive DIR` puts the packages of all these releases, and their locks, into DIR the first time, and bakes from it alone every later time:")
	w("Debian's mirrors drop what a security update replaces.")
	return b.String()
}
