// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/images/extents"
	"github.com/holdfast/holdfast/images/vmdk"
)

// Limits of the VMDK beside qemu-img's: wall time, length, and memory whatever
// the disk's size.
const (
	vmdkTime   = 0.25
	vmdkLength = 1.02
	vmdkMemory = 256 << 20
)

// vmdkBench is what was measured of two VMDK encoders.
type vmdkBench struct {
	ours, peer row
	// lengths of the files, and peak memory, in bytes.
	oursLen, peerLen                    int64
	oursMemory, peerMemory, largeMemory int64
	disk, data                          int64
}

// benchVMDK encodes a raw disk several times with ours and with the tools tree's
// qemu-img, in turns and with two threads, and once as a disk of 100 GiB for its
// memory. Files are made in dir.
func benchVMDK(ctx context.Context, tree, raw, dir string, runs int) (*vmdkBench, error) {
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
	out := filepath.Join(dir, "bench.vmdk")
	defer os.Remove(out)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	b := &vmdkBench{peer: row{name: "qemu-img"}, ours: row{name: "Holdfast", limit: vmdkTime}, disk: st.Size(), data: extents.Total(data)}
	for n := range runs + 1 {
		// Nobody pays for what another left unwritten.
		syscall.Sync()
		sp, err := measured(func() (err error) {
			b.peerLen, b.peerMemory, err = qemuVMDK(ctx, tree, raw, out)
			return err
		})
		if err != nil {
			return nil, err
		}
		syscall.Sync()
		var memory int64
		so, err := measured(func() (err error) {
			b.oursLen, memory, err = ourVMDK(ctx, f, data, out, st.Size())
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
	b.largeMemory, err = largeVMDK(ctx, f, dir, out)
	return b, err
}

// ourVMDK returns the file's length and the peak of this process's memory.
func ourVMDK(ctx context.Context, f *os.File, data []extents.Run, to string, capacity int64) (int64, int64, error) {
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
	r, err := vmdk.Encode(ctx, out, f, st.Size(), data, vmdk.Options{Capacity: capacity, Name: "bench.vmdk", Workers: 2})
	if err != nil {
		return 0, 0, err
	}
	memory, err := peakMemory()
	return r.Size, memory, err
}

// largeVMDK is the peak memory for a disk of 100 GiB with the same data at its
// start and again at its end.
func largeVMDK(ctx context.Context, f *os.File, dir, to string) (int64, error) {
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
	runs, err := extents.Runs(large)
	if err != nil {
		return 0, err
	}
	_, memory, err := ourVMDK(ctx, large, runs, to, size)
	return memory, err
}

// peakMemory is VmHWM of this process in bytes.
func peakMemory() (int64, error) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no VmHWM")
}

// qemuVMDK returns the file's length and the peak of qemu-img's memory.
func qemuVMDK(ctx context.Context, tree, raw, to string) (int64, int64, error) {
	lib := filepath.Join(tree, "usr/lib/x86_64-linux-gnu")
	cmd := exec.CommandContext(ctx, filepath.Join(lib, "ld-linux-x86-64.so.2"), "--library-path", lib, filepath.Join(tree, "usr/bin/qemu-img"),
		"convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, to)
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, 0, fmt.Errorf("qemu-img: %w: %s", err, out)
	}
	st, err := os.Stat(to)
	if err != nil {
		return 0, 0, err
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, 0, fmt.Errorf("the system does not say what qemu-img used")
	}
	return st.Size(), usage.Maxrss << 10, nil
}

func (b *vmdkBench) length() float64 { return float64(b.oursLen) / float64(b.peerLen) }

func (b *vmdkBench) missed() bool {
	return b.ours.missed(b.peer) || b.length() > vmdkLength || max(b.oursMemory, b.largeMemory) > vmdkMemory
}

// markdown is the part of the page about the VMDK.
func (b *vmdkBench) markdown() string {
	var w strings.Builder
	fmt.Fprintf(&w, "## VMDK beside qemu-img\n\nstreamOptimized, of a disk of %s with %s of data; medians of %d, in turns, two threads each where it can.\n\n",
		show.Bytes(b.disk), show.Bytes(b.data), len(b.ours.samples))
	w.WriteString("| encoder | wall | of qemu-img | at most | length | of qemu-img | at most | peak memory |\n|---|---:|---:|---:|---:|---:|---:|---:|\n")
	fmt.Fprintf(&w, "| qemu-img | %s s | | | %s | | | %s |\n", secs(b.peer.wall()), show.Bytes(b.peerLen), show.Bytes(b.peerMemory))
	fmt.Fprintf(&w, "| Holdfast | %s s | %.3f | %.2f | %s | %.4f | %.2f | %s |\n", secs(b.ours.wall()), b.ours.ratio(b.peer), vmdkTime,
		show.Bytes(b.oursLen), b.length(), vmdkLength, show.Bytes(b.oursMemory))
	fmt.Fprintf(&w, "\nPeak memory for a disk of 100 GiB: %s of at most %s.\n", show.Bytes(b.largeMemory), show.Bytes(vmdkMemory))
	if b.missed() {
		w.WriteString("\n**A limit was missed.**\n")
	}
	return w.String()
}
