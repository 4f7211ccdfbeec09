// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// shellPort is the name of the virtio port that the shell listens on.
const shellPort = "org.holdfast.test"

// shellUnit serves commands on the port. It reaches the box as a system
// credential of this machine's SMBIOS tables, so the image under test is the
// very image that ships. One line is one command: "ID BASE64"; the answer is
// "done ID STATUS BASE64", and each start says "hello BOOT-ID".
// Percent and dollar signs are doubled for systemd.
const shellUnit = `[Unit]
Description=Root shell of the test harness
DefaultDependencies=no
ConditionPathExists=!/etc/initrd-release
BindsTo=dev-virtio\x2dports-org.holdfast.test.device
After=dev-virtio\x2dports-org.holdfast.test.device
[Service]
Restart=always
ExecStart=/bin/sh -c 'exec 3<>/dev/virtio-ports/org.holdfast.test; \
 echo "hello $$(cat /proc/sys/kernel/random/boot_id)" >&3; \
 while read -r id b64 <&3; do \
  cmd=$$(printf %%s "$$b64" | base64 -d); \
  out=$$(PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c "$$cmd" </dev/null 3>&- 2>&1); rc=$$?; \
  printf "done %%s %%s %%s\n" "$$id" "$$rc" "$$(printf %%s "$$out" | base64 -w0)" >&3; \
 done'
`

// shellCredentials are the SMBIOS strings that start the shell.
func shellCredentials() []string {
	enc := func(name, text string) string {
		return "io.systemd.credential.binary:" + name + "=" + base64.StdEncoding.EncodeToString([]byte(text))
	}
	return []string{
		enc("systemd.extra-unit.holdfast-test-shell.service", shellUnit),
		enc("systemd.unit-dropin.sysinit.target", "[Unit]\nWants=holdfast-test-shell.service\n"),
	}
}

// Shell is the host's end of the root shell.
type Shell struct {
	w       io.Writer
	mu      sync.Mutex
	next    int
	boots   []string // boot ids in the order of their greetings
	answers map[int]answer
	changed chan struct{}
	closed  bool
}

type answer struct {
	status int
	out    string
}

func newShell(conn io.ReadWriter) *Shell {
	s := &Shell{w: conn, answers: map[int]answer{}, changed: make(chan struct{})}
	go s.read(conn)
	return s
}

func (s *Shell) read(r io.Reader) {
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		s.mu.Lock()
		if err != nil {
			s.closed = true
		}
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[0] == "hello":
			s.boots = append(s.boots, fields[1])
		case len(fields) >= 3 && fields[0] == "done":
			id, err1 := strconv.Atoi(fields[1])
			status, err2 := strconv.Atoi(fields[2])
			out, err3 := base64.StdEncoding.DecodeString(strings.Join(fields[3:], ""))
			if err1 == nil && err2 == nil && err3 == nil {
				s.answers[id] = answer{status, string(out)}
			}
		}
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Ready waits for the shell of the n-th boot (1 is the first) and returns that
// boot's id.
func (s *Shell) Ready(ctx context.Context, n int) (string, error) {
	var id string
	err := s.wait(ctx, fmt.Sprintf("the root shell of boot %d", n), func() bool {
		distinct := 0
		for i, b := range s.boots {
			if i == 0 || b != s.boots[i-1] { // a restarted shell greets again
				distinct++
			}
			if distinct == n {
				id = b
				return true
			}
		}
		return false
	})
	return id, err
}

// Next waits for the shell of a boot other than the given one, and returns that
// boot's id.
func (s *Shell) Next(ctx context.Context, boot string) (string, error) {
	var id string
	err := s.wait(ctx, "the root shell of the boot after "+boot, func() bool {
		if n := len(s.boots); n > 0 && s.boots[n-1] != boot {
			id = s.boots[n-1]
			return true
		}
		return false
	})
	return id, err
}

// ErrRebooted is returned by Run where the box rebooted before it answered.
var ErrRebooted = errors.New("the box rebooted before it answered")

// Run runs a command line as root and returns what it printed, both streams
// together, and its exit status. The error is about the way there.
func (s *Shell) Run(ctx context.Context, command string) (out string, status int, err error) {
	s.mu.Lock()
	s.next++
	id, greeted := s.next, len(s.boots)
	s.mu.Unlock()
	if _, err := fmt.Fprintf(s.w, "%d %s\n", id, base64.StdEncoding.EncodeToString([]byte(command))); err != nil {
		return "", 0, fmt.Errorf("root shell: %w", err)
	}
	rebooted := false
	err = s.wait(ctx, "the answer to `"+command+"`", func() bool {
		a, ok := s.answers[id]
		out, status = a.out, a.status
		// A shell that was restarted in the same boot answers what it reads.
		last := len(s.boots)
		rebooted = !ok && greeted > 0 && last > greeted && s.boots[last-1] != s.boots[greeted-1]
		return ok || rebooted
	})
	if err == nil && rebooted {
		err = fmt.Errorf("`%s`: %w", command, ErrRebooted)
	}
	return out, status, err
}

// wait returns when done, called under the lock, is true.
func (s *Shell) wait(ctx context.Context, what string, done func() bool) error {
	for {
		s.mu.Lock()
		ok, closed, changed := done(), s.closed, s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		if closed {
			return fmt.Errorf("the machine ended while waiting for %s", what)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
}
