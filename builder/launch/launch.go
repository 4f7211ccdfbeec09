// SPDX-License-Identifier: Apache-2.0

// Package launch boots a baked disk in QEMU for a person: it keeps the box's
// state between runs in an overlay, forwards one port, says when the stack
// answers, and presses the power button when asked to stop. It never writes to
// the output folder of a bake, and refuses a disk that another run uses.
package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/builder"
)

// Options of one run.
type Options struct {
	// Dist is the output folder of a bake, Manifest its manifest.json.
	Dist     string
	Manifest builder.Manifest
	// Tree is the tools tree that holds QEMU and its firmware.
	Tree string
	// State is the folder for overlays; one subfolder per disk.
	State string
	// Fresh drops the state of earlier runs.
	Fresh bool
	// DiskSize is the box's disk in bytes; state grows into it.
	DiskSize int64
	CPUs     int
	MemoryMB int
	// Port on 127.0.0.1 is forwarded to port 80 of the box.
	Port int
	// Label names what answers on the port, e.g. "Guest book".
	Label string
	// AllConsole shows the whole serial console.
	AllConsole bool
	// Stop delivers a person's wish to stop: the first presses the power
	// button, the second kills.
	Stop <-chan os.Signal
	// Answer gets the one line that matters, Out the rest.
	Answer, Out io.Writer
}

// askEvery is the pause between two questions whether the stack answers.
const askEvery = 2 * time.Second

// Run boots the box and returns when it is off: nil after a power-off, an
// error when QEMU failed or was killed.
func Run(ctx context.Context, o Options) error {
	if err := portFree(o.Port); err != nil {
		return err
	}
	box, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	defer box.unlock()
	log, err := os.Create(filepath.Join(box.dir, "console.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	con := &console{log: log, show: o.Out, all: o.AllConsole}
	var messages bytes.Buffer
	ours, theirs, err := qmpPair()
	if err != nil {
		return err
	}
	defer ours.conn.Close()
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	m := machine{tree: o.Tree, overlay: box.overlay, vars: box.vars, kvm: hasKVM(string(cpuinfo)), cpus: o.CPUs, memory: o.MemoryMB, port: o.Port}
	fmt.Fprintf(o.Out, "Booting %s-%s (%s; state in %s)\n", o.Manifest.Name, o.Manifest.Version, accelName(m.kvm), box.dir)
	fmt.Fprintf(o.Out, "Console: %s. Ctrl-C powers the box off.\n", log.Name())
	p, err := startQEMU(o.Tree, qemuArgs(m), theirs, con, &messages)
	theirs.Close()
	if err != nil {
		return err
	}
	if err := ours.open(); err != nil {
		<-p.ended
		return fmt.Errorf("QEMU did not start: %s", strings.TrimSpace(messages.String()))
	}
	return attend(ctx, o, p, ours, con, &messages)
}

// attend waits for whatever comes first: an answer, a wish to stop, the end.
func attend(ctx context.Context, o Options, p *process, q *qmp, con *console, messages *bytes.Buffer) error {
	asking, stopAsking := context.WithCancel(ctx)
	defer stopAsking()
	answered := make(chan time.Duration, 1)
	go func() {
		start := time.Now()
		if answers(asking, o.Port) {
			answered <- time.Since(start)
		}
	}()
	stops := 0
	done := ctx.Done()
	for {
		select {
		case d := <-answered:
			fmt.Fprintf(o.Out, "Answers after %.0f s.\n", d.Seconds())
			fmt.Fprintf(o.Answer, "%s: http://127.0.0.1:%d/\n", o.Label, o.Port)
		case <-o.Stop:
			stopAsking()
			stops++
			if stops > 1 {
				fmt.Fprintln(o.Out, "Killing the box, as if its power was cut.")
				p.kill()
				continue
			}
			fmt.Fprintln(o.Out, "Powering off; Ctrl-C again cuts the power.")
			if err := q.powerdown(); err != nil {
				p.kill()
			}
		case <-done:
			done = nil
			p.kill()
		case <-p.ended:
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case stops > 1:
				return errors.New("the box was killed before it had powered off; the next run recovers its state")
			case p.err != nil:
				return fmt.Errorf("QEMU failed: %w\n%s\n%s", p.err, strings.TrimSpace(messages.String()), con.tail())
			}
			fmt.Fprintln(o.Out, "Powered off.")
			return nil
		}
	}
}

// answers asks the forwarded port until the stack answers, or ctx ends. Any
// answer but a server's error counts: what it says is the stack's affair.
func answers(ctx context.Context, port int) bool {
	client := &http.Client{Timeout: 20 * time.Second}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-pause.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
		if err != nil {
			return false
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode < 500 {
				return true
			}
		}
		pause.Reset(askEvery)
	}
}

func portFree(port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("port %d is in use: stop what uses it, or choose another with --port", port)
		}
		return err
	}
	return l.Close()
}

func accelName(kvm bool) string {
	if kvm {
		return "KVM"
	}
	return "emulated, which takes minutes"
}
