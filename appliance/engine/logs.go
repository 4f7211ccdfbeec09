// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// maxLogLine bounds one line of a log in bytes; a longer one comes in pieces.
// The engine's own drivers cut at 16 KiB.
const maxLogLine = 64 << 10

// stampForm is the time that the engine puts before a line.
const (
	stampForm   = "2006-01-02T15:04:05.000000000Z "
	stampLength = len(stampForm)
)

// LogOptions say which part of a container's log is wanted.
type LogOptions struct {
	// Tail is how many of the newest lines, -1 is all.
	Tail int
	// Since is the time of the oldest line; zero is the container's first.
	Since time.Time
	// Follow goes on with new lines until the container ends.
	Follow bool
}

// LogLine is one line that a container wrote.
type LogLine struct {
	Time time.Time
	// Stream is "stdout" or "stderr"; a container with a terminal has only
	// "stdout".
	Stream string
	// Text without its line end.
	Text string
}

// Logs calls each with the lines of a container's log, the oldest first, until
// they end, each fails or ctx ends. A container that is gone is ErrNotFound.
// Without Follow the engine has to answer within a minute.
func (d *Docker) Logs(ctx context.Context, id string, o LogOptions, each func(LogLine) error) error {
	limit := askTimeout
	ask, cancel := context.WithCancel(ctx)
	defer cancel()
	// The answer's head has a deadline, its body has none: a log may be long,
	// and one that is followed never ends.
	late := time.AfterFunc(limit, cancel)
	tty, err := d.hasTerminal(ask, id)
	if err != nil {
		return err
	}
	opts := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: o.Follow, Tail: "all"}
	if o.Tail >= 0 {
		opts.Tail = strconv.Itoa(o.Tail)
	}
	if !o.Since.IsZero() {
		opts.Since = o.Since.UTC().Format(time.RFC3339Nano)
	}
	body, err := d.cli.ContainerLogs(ask, id, opts)
	if !late.Stop() && ctx.Err() == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		if body != nil {
			body.Close()
		}
		return wrap("logs", err)
	}
	defer body.Close()
	// Whatever waits for the body must end with ctx.
	defer context.AfterFunc(ctx, func() { body.Close() })()
	if err = readLog(body, tty, each); ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (d *Docker) hasTerminal(ctx context.Context, id string) (bool, error) {
	r, err := d.cli.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return false, wrap("inspect container "+id, err)
	}
	return r.Container.Config != nil && r.Container.Config.Tty, nil
}

// readLog splits what the engine streams. Without a terminal that is frames
// of one stream each: a byte 1 (stdout) or 2 (stderr), three zeros, the
// length, big endian (Engine API, "Attach to a container"). A line may span
// frames.
func readLog(r io.Reader, tty bool, each func(LogLine) error) error {
	if tty {
		l := &lineSplitter{stream: "stdout", each: each}
		if _, err := io.Copy(l, r); err != nil {
			return logError(err)
		}
		return l.flush()
	}
	in := bufio.NewReaderSize(r, 64<<10)
	streams := map[byte]*lineSplitter{
		0: {stream: "stdout", each: each}, // stdin, which nobody sends
		1: {stream: "stdout", each: each},
		2: {stream: "stderr", each: each},
	}
	for {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			for _, n := range []byte{1, 2} {
				if err := streams[n].flush(); err != nil {
					return err
				}
			}
			return nil
		} else if err != nil {
			return logError(err)
		}
		n := int64(binary.BigEndian.Uint32(head[4:]))
		if head[0] == 3 {
			text, err := io.ReadAll(io.LimitReader(in, min(n, 4<<10)))
			return errors.Join(fmt.Errorf("logs: the Docker engine says: %s", text), err)
		}
		to := streams[head[0]]
		if to == nil || head[1] != 0 || head[2] != 0 || head[3] != 0 {
			return fmt.Errorf("logs: the Docker engine sent a frame of the unknown kind %x", head[:4])
		}
		if to.midLine() {
			// The engine cuts long lines and puts its time before each piece.
			piece, err := in.Peek(int(min(n, int64(stampLength))))
			if err != nil {
				return logError(err)
			}
			if _, err := time.Parse(stampForm, string(piece)); err == nil {
				in.Discard(len(piece))
				n -= int64(len(piece))
			}
		}
		if _, err := io.CopyN(to, in, n); err != nil {
			return logError(err)
		}
	}
}

func logError(err error) error {
	var stop *stopError
	if errors.As(err, &stop) {
		return stop.error
	}
	return wrap("logs", err)
}

// stopError is the caller's own.
type stopError struct{ error }

// lineSplitter passes on each line that is written to it, at most maxLogLine
// bytes of it at once.
type lineSplitter struct {
	stream string
	each   func(LogLine) error
	part   []byte
	at     time.Time // of the line that part goes on with
}

func (l *lineSplitter) Write(p []byte) (int, error) {
	for i := 0; i < len(p); {
		n := min(len(p)-i, maxLogLine-len(l.part))
		end := bytes.IndexByte(p[i:i+n], '\n')
		if end < 0 {
			l.part = append(l.part, p[i:i+n]...)
			i += n
			if len(l.part) < maxLogLine {
				continue
			}
			if err := l.line(false); err != nil {
				return i, err
			}
			continue
		}
		l.part = append(l.part, p[i:i+end]...)
		i += end + 1
		if err := l.line(true); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// midLine says that what comes next goes on with a line.
func (l *lineSplitter) midLine() bool { return len(l.part) > 0 || !l.at.IsZero() }

// line passes on what is there; ends says that its line ends here.
func (l *lineSplitter) line(ends bool) error {
	text := string(l.part)
	l.part = l.part[:0]
	// Only the head of a line has the engine's time before it.
	if l.at.IsZero() {
		stamp, rest, _ := strings.Cut(text, " ")
		if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			l.at, text = at, rest
		}
	}
	out := LogLine{Time: l.at, Stream: l.stream, Text: strings.TrimSuffix(text, "\r")}
	if ends {
		l.at = time.Time{}
	}
	if err := l.each(out); err != nil {
		return &stopError{err}
	}
	return nil
}

// flush passes on a last line without an end.
func (l *lineSplitter) flush() error {
	if len(l.part) == 0 {
		return nil
	}
	err := l.line(true)
	var stop *stopError
	if errors.As(err, &stop) {
		return stop.error
	}
	return err
}
