// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/images/extents"
	"github.com/holdfast/holdfast/images/gcetar"
)

// Limits of the GCE archive beside tar and pigz: wall time, and memory whatever
// the disk's size.
const (
	gcetarTime   = 0.4
	gcetarMemory = 256 << 20
)

// gcetarBench is what was measured of two ways to make disk.raw a tar.gz.
type gcetarBench struct {
	ours, peer row
	// lengths of the files, and peak memory, in bytes.
	oursLen, peerLen                    int64
	oursMemory, peerMemory, largeMemory int64
	disk, data                          int64
}

// benchGCETar packs a disk several times with ours and with the tools tree's tar
// and pigz, in turns and with two threads, and once a disk of 100 GiB for its
// memory. raw must be called disk.raw; files are made in dir. Ours makes a disk
// of whole GiB, which costs it nothing; tar takes the disk as long as it is.
func benchGCETar(ctx context.Context, tree, raw, dir string, runs int) (*gcetarBench, error) {
	if _, err := os.Stat(filepath.Join(tree, "usr/bin/pigz")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the tools tree %s has no pigz: add its package to the tree", tree)
	}
	f, err := os.Open(raw)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data, err := extents.Runs(f)
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "bench.tar.gz")
	defer os.Remove(out)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	b := &gcetarBench{peer: row{name: "tar -S | pigz"}, ours: row{name: "Holdfast", limit: gcetarTime}, disk: st.Size(), data: extents.Total(data)}
	for n := range runs + 1 {
		syscall.Sync() // nobody pays for what another left unwritten
		sp, err := measured(func() (err error) {
			b.peerLen, b.peerMemory, err = foreignTar(ctx, tree, raw, out)
			return err
		})
		if err != nil {
			return nil, err
		}
		syscall.Sync()
		var memory int64
		so, err := measured(func() (err error) {
			b.oursLen, memory, err = ourTar(ctx, f, out)
			return err
		})
		if err != nil {
			return nil, err
		}
		if n > 0 { // the first run reads the disk into memory for both
			add(&b.peer, sp)
			add(&b.ours, so)
			b.oursMemory = max(b.oursMemory, memory)
		}
	}
	b.largeMemory, err = largeTar(ctx, f, dir, out)
	return b, err
}

// ourTar returns the file's length and the peak of this process's memory.
func ourTar(ctx context.Context, f *os.File, to string) (int64, int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	out, err := os.Create(to)
	if err != nil {
		return 0, 0, err
	}
	defer out.Close()
	runtime.GC()
	// 5 sets the peak to what is in use now (proc_pid_clear_refs(5)).
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200); err != nil {
		return 0, 0, err
	}
	data, err := extents.Runs(f)
	if err != nil {
		return 0, 0, err
	}
	capacity := (st.Size() + gcetar.Unit - 1) / gcetar.Unit * gcetar.Unit
	if err := gcetar.Write(ctx, out, f, data, st.Size(), capacity, gcetar.Options{Workers: 2}); err != nil {
		return 0, 0, err
	}
	memory, err := peakMemory()
	if err != nil {
		return 0, 0, err
	}
	st, err = out.Stat()
	if err != nil {
		return 0, 0, err
	}
	return st.Size(), memory, nil
}

// largeTar is the peak memory for a disk of 100 GiB with the same data at its
// start and again at its end.
func largeTar(ctx context.Context, f *os.File, dir, to string) (int64, error) {
	const size = 100 << 30
	large, err := os.CreateTemp(dir, "large-*.raw")
	if err != nil {
		return 0, err
	}
	defer os.Remove(large.Name())
	defer large.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	for _, at := range []int64{0, size - st.Size()} {
		if _, err := extents.Copy(ctx, large, f, at, nil); err != nil {
			return 0, err
		}
	}
	_, memory, err := ourTar(ctx, large, to)
	return memory, err
}

// foreignTar runs tar and pigz of the tools tree as one pipe, with the options
// that Google's own instructions have. It returns the file's length and the sum
// of the peaks of both programs' memory.
func foreignTar(ctx context.Context, tree, raw, to string) (length, memory int64, err error) {
	out, err := os.Create(to)
	if err != nil {
		return 0, 0, err
	}
	defer out.Close()
	lib := filepath.Join(tree, "usr/lib/x86_64-linux-gnu")
	program := func(name string, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, filepath.Join(lib, "ld-linux-x86-64.so.2"), append([]string{"--library-path", lib, filepath.Join(tree, "usr/bin", name)}, args...)...)
	}
	tar := program("tar", "-S", "--format=oldgnu", "-C", filepath.Dir(raw), "-c", filepath.Base(raw))
	pigz := program("pigz", "-p", "2")
	var said bytes.Buffer
	tar.Stderr, pigz.Stderr, pigz.Stdout = &said, &said, out
	if pigz.Stdin, err = tar.StdoutPipe(); err != nil {
		return 0, 0, err
	}
	if err := errors.Join(pigz.Start(), tar.Start()); err != nil {
		return 0, 0, err
	}
	// pigz first: tar's pipe may be closed only when pigz has read it all.
	if err := errors.Join(pigz.Wait(), tar.Wait()); err != nil {
		return 0, 0, fmt.Errorf("tar and pigz: %w: %s", err, said.String())
	}
	for _, cmd := range []*exec.Cmd{tar, pigz} {
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			return 0, 0, errors.New("the system does not say what tar and pigz used")
		}
		memory += usage.Maxrss << 10
	}
	st, err := out.Stat()
	if err != nil {
		return 0, 0, err
	}
	return st.Size(), memory, nil
}

func (b *gcetarBench) missed() bool {
	return b.ours.missed(b.peer) || max(b.oursMemory, b.largeMemory) > gcetarMemory
}

// markdown is the part of the page about the archive.
func (b *gcetarBench) markdown() string {
	var w strings.Builder
	fmt.Fprintf(&w, "## GCE archive beside tar and pigz\n\nOf a disk of %s with %s of data; medians of %d, in turns, two threads each. The peer is\n`tar -S --format=oldgnu -c disk.raw | pigz -p 2`.\n\n",
		show.Bytes(b.disk), show.Bytes(b.data), len(b.ours.samples))
	w.WriteString("| maker | wall | of the peer | at most | length | of the peer | peak memory |\n|---|---:|---:|---:|---:|---:|---:|\n")
	fmt.Fprintf(&w, "| tar, pigz | %s s | | | %s | | %s |\n", secs(b.peer.wall()), show.Bytes(b.peerLen), show.Bytes(b.peerMemory))
	fmt.Fprintf(&w, "| Holdfast | %s s | %.3f | %.2f | %s | %.4f | %s |\n", secs(b.ours.wall()), b.ours.ratio(b.peer), gcetarTime,
		show.Bytes(b.oursLen), float64(b.oursLen)/float64(b.peerLen), show.Bytes(b.oursMemory))
	fmt.Fprintf(&w, "\nPeak memory for a disk of 100 GiB: %s of at most %s.\n", show.Bytes(b.largeMemory), show.Bytes(gcetarMemory))
	if b.missed() {
		w.WriteString("\n**A limit was missed.**\n")
	}
	return w.String()
}
