// SPDX-License-Identifier: Apache-2.0

//go:build bake

package bake

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/builder"
)

// stepSigns says for each step what appears when it begins. $C is the cache,
// $O the folder that becomes the output. The order is the order in which a
// bake with an empty cache comes to them, so that each row finds its step not
// yet in the cache although the row before made what comes first.
var stepSigns = []struct{ step, sign string }{
	{"packages", "$C/debs/*"},
	{"tools", "$C/tools/.making-*"},
	{"rootfs", "$C/rootfs/.making-*"},
	{"initrd", "$C/initrd/.making-*"},
	{"seal", "$C/seal/.making-*"},
	{"uki", "$C/uki/.making-*"},
	{"factory", "$C/factory/.making-*"},
	{"sbom", "$O/sbom.cdx.json"},
	{"release", "$O/" + builder.ReleaseName},
	{"disk", "$O/disk.raw"},
	{"finish", "$O/" + builder.LockName},
}

// TestInterrupt stops a bake as each step begins, by Ctrl-C (SIGINT to all of
// the foreground group, as a terminal does) and by SIGKILL (to Packer alone,
// so that everything else must notice by itself). The output folder stays as it
// was; nothing stays mounted or running; the next bake goes on with the cache,
// and what comes out in the end is what a bake without interruption makes.
func TestInterrupt(t *testing.T) {
	from := archive(t)
	work := t.TempDir()
	plain := request{output: filepath.Join(work, "plain")}
	plain.must(t)
	for _, how := range []struct {
		name   string
		signal syscall.Signal
		group  bool
	}{{"SIGINT", unix.SIGINT, true}, {"SIGKILL", unix.SIGKILL, false}} {
		t.Run(how.name, func(t *testing.T) {
			dir := filepath.Join(work, how.name)
			r := request{cache: filepath.Join(dir, "cache"), output: filepath.Join(dir, "dist", "demo"), vars: []string{"archive=" + from}}
			if err := os.MkdirAll(r.output, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(r.output, "manifest.json"), []byte("an older bake\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, s := range stepSigns {
				ok := t.Run(s.step, func(t *testing.T) {
					output := listing(t, r.output)
					before := observe(t)
					r.interrupt(t, s.sign, how.signal, how.group)
					before.unchanged(t)
					if now := listing(t, r.output); now != output {
						// The bake may have been past its last act.
						if s.step != "finish" {
							t.Fatalf("the output folder was\n%sand is\n%s", output, now)
						}
						t.Log("the bake was done before the signal came")
						same(t, plain.output, r.output)
					}
				})
				if !ok {
					return
				}
			}
			r.must(t)
			same(t, plain.output, r.output)
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(r.output), ".*")); err != nil || len(left) > 0 {
				t.Errorf("beside the output folder: %v, %v", left, err)
			}
		})
	}
}

// interrupt starts a bake, signals it once a new file matches the sign, and
// waits for its end.
func (r request) interrupt(t *testing.T, sign string, signal syscall.Signal, group bool) {
	t.Helper()
	making := filepath.Join(filepath.Dir(r.output), "."+filepath.Base(r.output)+".baking")
	pattern := os.Expand(sign, func(name string) string { return map[string]string{"C": r.cache, "O": making}[name] })
	old := inodes(t, pattern)
	ctx, cancel := context.WithTimeoutCause(t.Context(), long, errors.New("waiting for "+pattern))
	defer cancel()
	var out bytes.Buffer
	cmd := r.command(ctx, &out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !fresh(t, pattern, old) {
		select {
		case <-tick.C:
		case err := <-done:
			if err == nil && strings.HasSuffix(pattern, builder.LockName) {
				// The last step is short: on a busy host it may be over
				// between two looks.
				t.Log("the bake ended before the signal came")
				return
			}
			t.Fatalf("the bake ended (%v) before there was %s:\n%s", err, pattern, out.String())
		}
	}
	pid := cmd.Process.Pid
	if group {
		pid = -pid
	}
	if err := unix.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Log("the bake ended well before the signal came")
	}
}

// inodes are what now matches a pattern.
func inodes(t *testing.T, pattern string) map[uint64]bool {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	found := map[uint64]bool{}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Lstat(name, &st) == nil { // else it has gone again
			found[st.Ino] = true
		}
	}
	return found
}

func fresh(t *testing.T, pattern string, old map[uint64]bool) bool {
	t.Helper()
	for ino := range inodes(t, pattern) {
		if !old[ino] {
			return true
		}
	}
	return false
}
