// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// qmp is the little of QEMU's machine protocol that a power button needs.
type qmp struct{ conn net.Conn }

// qmpPair makes the protocol's connection: theirs goes to QEMU, ours stays. A
// pair of sockets has no path, so nothing is left when either side dies.
func qmpPair() (ours *qmp, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs = os.NewFile(uintptr(fds[1]), "qmp")
	mine := os.NewFile(uintptr(fds[0]), "qmp")
	defer mine.Close()
	conn, err := net.FileConn(mine)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return &qmp{conn}, theirs, nil
}

// open ends the greeting phase; after it QEMU's answers are read and dropped,
// so that QEMU never waits for us.
func (q *qmp) open() error {
	if err := q.send("qmp_capabilities"); err != nil {
		return err
	}
	go io.Copy(io.Discard, q.conn)
	return nil
}

// powerdown presses the box's power button.
func (q *qmp) powerdown() error { return q.send("system_powerdown") }

func (q *qmp) send(command string) error {
	line, err := json.Marshal(map[string]string{"execute": command})
	if err != nil {
		return err
	}
	if _, err := q.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("QEMU does not take %s: %w", command, err)
	}
	return nil
}
