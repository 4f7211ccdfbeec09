// SPDX-License-Identifier: Apache-2.0

package packerplugin

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// watchPacker calls gone, and closes the channel it returns, when Packer dies.
// Packer is two processes of one program: the inner one talks to plugins, and
// the outer one, which is what a person or a supervisor kills, only watches it
// for panics. The inner survives the outer's death by SIGKILL, so all ancestors
// that run the same program as our parent are watched.
func watchPacker(gone func()) (<-chan struct{}, error) {
	var fds []unix.PollFd
	closeAll := func() {
		for _, p := range fds {
			unix.Close(int(p.Fd))
		}
	}
	parent := os.Getppid()
	program, err := os.Readlink(exePath(parent))
	if err != nil {
		return nil, err
	}
	for child, pid := os.Getpid(), parent; pid > 1; {
		exe, err := os.Readlink(exePath(pid))
		if err != nil || exe != program {
			break
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("pidfd of process %d: %w", pid, err)
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		// Only now is the number known to mean the ancestor: had it died
		// before the pidfd was open, the child would have another parent.
		if now, err := parentOf(child); err != nil || now != pid {
			closeAll()
			return nil, ErrPackerGone
		}
		next, err := parentOf(pid)
		if err != nil {
			closeAll()
			return nil, err
		}
		child, pid = pid, next
	}
	if len(fds) == 0 {
		return nil, ErrPackerGone
	}
	done := make(chan struct{})
	go func() {
		defer closeAll()
		for {
			n, err := unix.Poll(fds, -1)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			// A failing poll leaves us blind; blind is gone, never "go on".
			if err != nil || n > 0 {
				gone()
				close(done)
				return
			}
		}
	}()
	return done, nil
}

func exePath(pid int) string { return fmt.Sprintf("/proc/%d/exe", pid) }

// parentOf reads the fourth field of /proc/PID/stat (proc(5)); the second, in
// parentheses, may hold anything.
func parentOf(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(data[max(0, strings.LastIndexByte(string(data), ')')):]), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat: %q is not what proc(5) describes", pid, data)
	}
	return strconv.Atoi(fields[1])
}
