// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// maxReply bounds one line of the protocol.
const maxReply = 4 << 20

// Event is one asynchronous message of QEMU, e.g. RESET or SHUTDOWN.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

// QMP is the client of QEMU's machine protocol: one command at a time, events
// kept in order.
type QMP struct {
	conn    io.ReadWriteCloser
	one     chan struct{} // holds the right to send
	replies chan reply
	mu      sync.Mutex
	events  []Event
	changed chan struct{}
	failed  error
	done    chan struct{}
}

type reply struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// openQMP shakes hands on a fresh connection.
func openQMP(ctx context.Context, conn io.ReadWriteCloser) (*QMP, error) {
	q := &QMP{
		conn:    conn,
		one:     make(chan struct{}, 1),
		replies: make(chan reply),
		changed: make(chan struct{}),
		done:    make(chan struct{}),
	}
	go q.read()
	if err := q.Command(ctx, "qmp_capabilities", nil, nil); err != nil {
		return nil, err
	}
	return q, nil
}

func (q *QMP) read() {
	lines := bufio.NewScanner(q.conn)
	lines.Buffer(nil, maxReply)
	for lines.Scan() {
		var m struct {
			Event
			reply
			Greeting json.RawMessage `json:"QMP"`
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			q.fail(fmt.Errorf("QMP: %w in %q", err, lines.Text()))
			return
		}
		switch {
		case m.Greeting != nil:
		case m.Name != "":
			q.mu.Lock()
			q.events = append(q.events, m.Event)
			close(q.changed)
			q.changed = make(chan struct{})
			q.mu.Unlock()
		default:
			q.replies <- m.reply
		}
	}
	err := lines.Err()
	if err == nil {
		err = io.EOF
	}
	q.fail(fmt.Errorf("QMP: QEMU closed the connection: %w", err))
}

func (q *QMP) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failed = err
	close(q.done)
}

// Command runs one command; args and out may be nil.
func (q *QMP) Command(ctx context.Context, name string, args, out any) error {
	select {
	case q.one <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("QMP %s: %w", name, context.Cause(ctx))
	case <-q.done:
		return q.failed
	}
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{name, args})
	if err == nil {
		_, err = q.conn.Write(append(line, '\n'))
	}
	if err != nil {
		<-q.one
		return fmt.Errorf("QMP %s: %w", name, err)
	}
	select {
	case r := <-q.replies:
		<-q.one
		if r.Error != nil {
			return fmt.Errorf("QMP %s: %s: %s", name, r.Error.Class, r.Error.Desc)
		}
		if out == nil {
			return nil
		}
		return json.Unmarshal(r.Return, out)
	case <-ctx.Done():
		// The answer may still come and would be taken for the next one's, so
		// nobody may send again.
		return fmt.Errorf("QMP %s: %w", name, context.Cause(ctx))
	case <-q.done:
		<-q.one
		return q.failed
	}
}

// Monitor runs one command of the human monitor and returns its answer.
func (q *QMP) Monitor(ctx context.Context, line string) (string, error) {
	var out string
	err := q.Command(ctx, "human-monitor-command", map[string]string{"command-line": line}, &out)
	return out, err
}

// errGone marks a wait that ended because QEMU did.
var errGone = errors.New("QEMU ended")

// Events so far; its length is a mark for Wait.
func (q *QMP) Events() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]Event(nil), q.events...)
}

// Wait returns the first event of a name after the first mark ones.
func (q *QMP) Wait(ctx context.Context, mark int, name string) (Event, error) {
	for {
		q.mu.Lock()
		seen, changed := q.events[min(mark, len(q.events)):], q.changed
		q.mu.Unlock()
		for _, e := range seen {
			if e.Name == name {
				return e, nil
			}
		}
		select {
		case <-changed:
		case <-q.done:
			return Event{}, fmt.Errorf("waiting for QEMU's event %s: %w", name, errGone)
		case <-ctx.Done():
			return Event{}, fmt.Errorf("waiting for QEMU's event %s: %w", name, context.Cause(ctx))
		}
	}
}
