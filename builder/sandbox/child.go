// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Child returns at once in a normal start of the program. In the start that Run
// makes it sets up the namespaces, runs the command, reaps what is orphaned
// and exits with the command's status; it never returns.
func Child() {
	if len(os.Args) == 0 || os.Args[0] != childName {
		return
	}
	code, err := child()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		code = setupFailed
	}
	os.Exit(code)
}

func child() (int, error) {
	f := os.NewFile(3, "spec")
	b, err := io.ReadAll(io.LimitReader(f, 4<<20))
	f.Close()
	if err != nil {
		return 0, err
	}
	var s spec
	if err := json.Unmarshal(b, &s); err != nil {
		return 0, fmt.Errorf("reading what to run: %w", err)
	}
	// Whoever started this program may have left files open in it, as Packer
	// does in plugins. What runs here must not get them: mmdebstrap fails
	// where the first free number has two digits, which Debian's sh cannot
	// redirect to.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return 0, fmt.Errorf("closing inherited files: %w", err)
	}
	// What runs here makes files that others read, and that enter images: the
	// caller's umask must not show in them.
	unix.Umask(0o022)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 0, fmt.Errorf("making mounts private: %w", err)
	}
	if s.Root != "" {
		if err := enter(s.Root, s.Binds); err != nil {
			return 0, err
		}
	} else if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return 0, fmt.Errorf("mounting /proc: %w", err)
	}
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	if err := os.Chdir(dir); err != nil {
		return 0, err
	}
	path, err := lookPath(s.Args[0], s.Env)
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(path, s.Args, &syscall.ProcAttr{Env: s.Env, Files: []uintptr{0, 1, 2}})
	if err != nil {
		return 0, fmt.Errorf("starting %s: %w", path, err)
	}
	// As the namespace's first process this one inherits every orphan.
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if got != pid {
			continue
		}
		if ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return ws.ExitStatus(), nil
	}
}

// enter makes root the root folder, with the kernel's file systems, scratch
// space and the binds on it.
func enter(root string, binds []Bind) error {
	// pivot_root wants a mount point; the tree itself is never written.
	if err := unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("binding %s: %w", root, err)
	}
	for _, m := range []struct {
		src, at, fs string
		flags       uintptr
		data        string
	}{
		{"proc", "proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"/dev", "dev", "", unix.MS_BIND | unix.MS_REC, ""},
		{"/sys", "sys", "", unix.MS_BIND | unix.MS_REC, ""},
		{"tmpfs", "tmp", "tmpfs", 0, "mode=1777"},
		{"tmpfs", "run", "tmpfs", 0, "mode=0755"},
	} {
		at := filepath.Join(root, m.at)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.src, at, m.fs, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting %s: %w", at, err)
		}
	}
	for _, b := range binds {
		if err := bind(root, b); err != nil {
			return err
		}
	}
	old := filepath.Join(root, "run", ".old")
	if err := os.Mkdir(old, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, old); err != nil {
		return fmt.Errorf("changing the root to %s: %w", root, err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/run/.old", unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove("/run/.old")
}

func bind(root string, b Bind) error {
	st, err := os.Stat(b.Host)
	if err != nil {
		return err
	}
	at := filepath.Join(root, b.Tree)
	if st.IsDir() {
		err = os.MkdirAll(at, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(at), 0o755); err == nil {
		var f *os.File
		if f, err = os.OpenFile(at, os.O_CREATE|os.O_RDONLY, 0o644); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(b.Host, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("binding %s at %s: %w", b.Host, b.Tree, err)
	}
	if b.ReadOnly {
		if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("making %s read-only: %w", b.Tree, err)
		}
	}
	return nil
}

// lookPath is exec.LookPath with the PATH of the command's own environment.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, e := range env {
		v, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, d := range filepath.SplitList(v) {
			p := filepath.Join(d, name)
			if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("%s is not installed there", name)
}
