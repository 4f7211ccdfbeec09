// SPDX-License-Identifier: Apache-2.0

package pressure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine samples a machine: root is put before every path, "" is the running
// one. rooms tells the room on disks and in quotas, may be nil, and is asked
// for each sample.
func Machine(root string, rooms func() []Room) func() (Sample, error) {
	return func() (Sample, error) {
		s := Sample{Time: time.Now()}
		data, err := os.ReadFile(root + "/proc/meminfo")
		if err != nil {
			return s, err
		}
		var ok1, ok2 bool
		s.MemoryTotal, ok1 = kibibytes(string(data), "MemTotal:")
		s.MemoryAvailable, ok2 = kibibytes(string(data), "MemAvailable:")
		if !ok1 || !ok2 {
			return s, errNone
		}
		memory, err1 := stalls(root + "/proc/pressure/memory")
		io, err2 := stalls(root + "/proc/pressure/io")
		if err := errors.Join(err1, err2); err == nil {
			s.PSI, s.MemoryFull, s.IOFull10, s.IOFull60 = true, memory.full10, io.full10, io.full60
		} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) {
			return s, err
		}
		if rooms != nil {
			s.Disks = rooms()
		}
		return s, nil
	}
}

func kibibytes(text, key string) (int64, bool) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10, err == nil && n >= 0 && n < 1<<52
		}
	}
	return 0, false
}

type averages struct{ full10, full60 float64 }

func stalls(path string) (averages, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return averages{}, err
	}
	a, ok := parseFull(string(data))
	if !ok {
		return a, fmt.Errorf("%s: not what the kernel writes: %.80q", path, data)
	}
	return a, nil
}

// parseFull reads "full avg10=0.00 avg60=0.00 avg300=0.00 total=0" as shares
// (Documentation/accounting/psi.rst).
func parseFull(text string) (a averages, ok bool) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "full" {
			continue
		}
		var ok1, ok2 bool
		a.full10, ok1 = share(f[1], "avg10=")
		a.full60, ok2 = share(f[2], "avg60=")
		return a, ok1 && ok2
	}
	return a, false
}

func share(word, key string) (float64, bool) {
	v, ok := strings.CutPrefix(word, key)
	n, err := strconv.ParseFloat(v, 64)
	if !ok || err != nil || !(n >= 0 && n <= 100) {
		return 0, false
	}
	return n / 100, true
}

// The triggers: nothing went on for 100 ms in a second for want of memory, for
// 500 ms because of disks.
var triggers = map[string]string{"memory": "full 100000 1000000", "io": "full 500000 1000000"}

// Triggers sets PSI triggers of the running machine and gives the function
// that waits for them, and one that ends them. It fails where the kernel has
// no PSI or lets us set none; the watcher then lives on its samples alone.
func Triggers() (wait func(context.Context) bool, end func(), err error) {
	t := &trigger{stop: -1}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	for name, text := range triggers {
		path := "/proc/pressure/" + name
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		t.fds = append(t.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLPRI})
		// The kernel takes the terminating NUL as part of the text.
		if _, err := unix.Write(fd, append([]byte(text), 0)); err != nil {
			return nil, nil, &os.PathError{Op: "write", Path: path, Err: err}
		}
	}
	if t.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, nil, err
	}
	t.fds = append(t.fds, unix.PollFd{Fd: int32(t.stop), Events: unix.POLLIN})
	return t.wait, t.close, nil
}

// trigger holds open files: a trigger lives as long as its file.
type trigger struct {
	fds  []unix.PollFd
	stop int
}

func (t *trigger) wait(ctx context.Context) bool {
	off := context.AfterFunc(ctx, func() { unix.Write(t.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer off()
	for ctx.Err() == nil {
		_, err := unix.Poll(t.fds, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false
		}
		woken := false
		for _, fd := range t.fds[:len(t.fds)-1] {
			if fd.Revents&unix.POLLERR != 0 {
				return false
			}
			woken = woken || fd.Revents&unix.POLLPRI != 0
		}
		if woken {
			return true
		}
	}
	return false
}

func (t *trigger) close() {
	for _, fd := range t.fds {
		if int(fd.Fd) != t.stop {
			unix.Close(int(fd.Fd))
		}
	}
	if t.stop >= 0 {
		unix.Close(t.stop)
	}
}
