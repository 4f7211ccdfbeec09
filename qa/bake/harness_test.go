// SPDX-License-Identifier: Apache-2.0

//go:build bake

package bake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Paths of the checkout, all absolute.
var (
	root     string
	bin      string
	stack    string
	lockFile string
	layout   string
	keyFile  string
	certFile string
)

// long bounds one bake; it is for broken ones, no claim about good ones.
const long = 20 * time.Minute

func TestMain(m *testing.M) {
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "bake:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(filepath.Dir(keyFile)); err != nil {
		fmt.Fprintln(os.Stderr, "bake:", err)
	}
	os.Exit(code)
}

func setUp() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("these tests bake, which needs root: run as root or with sudo")
	}
	if root, err = filepath.Abs("../.."); err != nil {
		return err
	}
	bin = filepath.Join(root, "build", "bin")
	stack = filepath.Join(root, "compose/stacks/demo/1.0.0/compose.yaml")
	lockFile = filepath.Join(root, "build/demo-1.0.0.lock")
	layout = filepath.Join(root, "build/demo-1.0.0.images")
	for _, path := range []string{bin + "/holdfast-release", bin + "/packer-plugin-holdfast", stack, lockFile, layout} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w: run `make lock` first", err)
		}
	}
	if err := os.Setenv("PATH", bin+":"+os.Getenv("PATH")); err != nil {
		return err
	}
	for _, program := range []string{"packer", "mmdebstrap", "unshare", "setpriv"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: run `make setup` first", err)
		}
	}
	// A key of our own, so that the tests do not depend on one made before.
	keys, err := os.MkdirTemp("", "holdfast-bake-key-")
	if err != nil {
		return err
	}
	if err := os.Chmod(keys, 0o755); err != nil { // one test is not root
		return err
	}
	keyFile, certFile = filepath.Join(keys, "key.pem"), filepath.Join(keys, "cert.pem")
	if err := makeKey(); err != nil {
		return err
	}
	// Whatever a killed bake leaves running becomes our child, so that it can
	// be found.
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// request is one `packer build`.
type request struct {
	cache, output string
	stack, lock   string
	layout        string
	vars          []string // more NAME=VALUE
	env           []string
	// template replaces packer.pkr.hcl.
	template string
	// targets makes OVA and GCE archive too, where the template has them.
	targets bool
	// wrap is a command line that runs the rest of its arguments.
	wrap []string
}

// command is the process of a request, not yet started; out gets all it says.
func (r request) command(ctx context.Context, out *bytes.Buffer) *exec.Cmd {
	or := func(s, or string) string {
		if s == "" {
			return or
		}
		return s
	}
	args := append(slices.Clone(r.wrap), "packer", "build", "-color=false",
		"-var", "stack="+or(r.stack, stack), "-var", "lock="+or(r.lock, lockFile),
		"-var", `layouts=["`+or(r.layout, layout)+`"]`,
		"-var", "signing_key="+keyFile, "-var", "signing_cert="+certFile,
		"-var", "output="+r.output)
	if r.cache != "" {
		args = append(args, "-var", "cache="+r.cache)
	}
	for _, v := range r.vars {
		args = append(args, "-var", v)
	}
	if !r.targets {
		args = append(args, "-except=holdfast-ova,holdfast-gce,holdfast-ami")
	}
	args = append(args, or(r.template, "packer.pkr.hcl"))
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "PACKER_PLUGIN_PATH="+filepath.Join(root, "build/packer-plugins"), "CHECKPOINT_DISABLE=1")
	cmd.Env = append(cmd.Env, r.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// run bakes to the end and returns what was said and the exit status.
func (r request) run(t *testing.T) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), long, errors.New("a bake took longer than "+long.String()))
	defer cancel()
	var out bytes.Buffer
	cmd := r.command(ctx, &out)
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%v; it said:\n%s", context.Cause(ctx), out.String())
	}
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// must bakes and expects that it works.
func (r request) must(t *testing.T) {
	t.Helper()
	if out, code := r.run(t); code != 0 {
		t.Fatalf("packer build ended with %d:\n%s", code, out)
	}
}

// archive exports the lock's packages once, for caches that begin empty.
func archive(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "archive")
	copied := filepath.Join(t.TempDir(), "demo.lock")
	data, err := os.ReadFile(lockFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, data, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("holdfast-release", "lock", "--stack", stack, "--lock", copied, "--layout", layout, "--archive", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("lock --archive: %v: %s", err, out)
	}
	if again, err := os.ReadFile(copied); err != nil || !bytes.Equal(again, data) {
		t.Errorf("locking again without changes changed the lock (%v)", err)
	}
	return dir
}

// host is what a bake must leave as it was.
type host struct {
	mounts, loops string
}

func observe(t *testing.T) host {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var loops []string
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		file, _ := os.ReadFile(name) // detached between the two calls
		loops = append(loops, name+" "+string(file))
	}
	return host{string(mounts), strings.Join(loops, "")}
}

// unchanged fails the test if the host is not as before or something that a
// bake started still runs. Processes get time to die, because nobody waited
// for the orphans among them.
func (h host) unchanged(t *testing.T) {
	t.Helper()
	const patience = time.Minute
	end := time.NewTimer(patience)
	defer end.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for left := descendants(); len(left) > 0; left = descendants() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Errorf("still running %s after the bake ended: %s", patience, strings.Join(left, "; "))
			for _, p := range left {
				pid, _ := strconv.Atoi(strings.Fields(p)[0])
				_ = unix.Kill(pid, unix.SIGKILL) // so that one failure is not the next row's too
			}
			return
		}
	}
	if now := observe(t); now != h {
		t.Errorf("the host before:\n%s%s\nand after:\n%s%s", h.mounts, h.loops, now.mounts, now.loops)
	}
}

// descendants are the living processes below this one, as "PID COMMAND".
func descendants() []string {
	parent := map[int]int{}
	name := map[int]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // a fixed pattern is never bad
	for _, file := range stats {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it ended
		}
		head, rest, ok := strings.Cut(string(data), " (")
		cut := strings.LastIndex(rest, ") ")
		if !ok || cut < 0 {
			continue
		}
		pid, _ := strconv.Atoi(head)
		f := strings.Fields(rest[cut+2:])
		ppid, _ := strconv.Atoi(f[1])
		if f[0] == "Z" {
			if ppid == os.Getpid() {
				var status unix.WaitStatus
				_, _ = unix.Wait4(pid, &status, unix.WNOHANG, nil) // an orphan that ended
			}
			continue
		}
		parent[pid], name[pid] = ppid, rest[:cut]
	}
	var below []string
	for pid := range maps.Keys(parent) {
		for p := parent[pid]; p > 1; p = parent[p] {
			if p == os.Getpid() {
				below = append(below, fmt.Sprintf("%d %s", pid, name[pid]))
				break
			}
		}
	}
	slices.Sort(below)
	return below
}

// listing is a folder with sizes, modes and times, to compare it over time;
// "" when it is not there.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s %d %d\n", path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return b.String()
}
