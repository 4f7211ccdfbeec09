// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

const (
	// flushEvery is how long lines may wait for more to go out with.
	flushEvery = 50 * time.Millisecond
	// stallAfter is how long one that reads nothing is waited for.
	stallAfter = 5 * time.Minute
)

// lines is an answer of one JSON value a line.
type lines struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	flow  *http.ResponseController
	leave func()
	begun bool
	timer *time.Timer // pending flush
	err   error
}

// stream begins an answer of lines; there are only so many at once.
func (h *handler) stream(w http.ResponseWriter) (*lines, error) {
	select {
	case h.streams <- struct{}{}:
	default:
		return nil, &Problem{Status: http.StatusServiceUnavailable, Text: "too many followers of status, events and logs are there already", Remedy: "end some of them, then ask again"}
	}
	return &lines{w: w, flow: http.NewResponseController(w), leave: func() { <-h.streams }}, nil
}

func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	// The server ends the answer with whatever is still held back; a pending
	// flush must not touch it any more.
	l.w = nil
	l.leave()
}

// line adds v; it goes out with the next flush, or soon.
func (l *lines) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.begin()
	l.flow.SetWriteDeadline(time.Now().Add(stallAfter))
	if _, l.err = l.w.Write(append(b, '\n')); l.err != nil {
		return l.err
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(flushEvery, func() { l.flush() })
	}
	return nil
}

func (l *lines) begin() {
	if !l.begun {
		l.w.Header().Set("Content-Type", "application/jsonl")
		l.begun = true
	}
}

func (l *lines) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w == nil || l.err != nil {
		return l.err
	}
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.begin()
	l.flow.SetWriteDeadline(time.Now().Add(stallAfter))
	l.err = l.flow.Flush()
	return l.err
}

// fail tells of an error: as the answer, or as its last line.
func (l *lines) fail(err error) {
	l.mu.Lock()
	begun, w := l.begun, l.w
	l.mu.Unlock()
	if begun {
		l.line(problemOf(err))
		return
	}
	refuse(w, err)
}

func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	since, follow, err := eventQuery(r)
	var s *lines
	if err == nil {
		s, err = h.stream(w)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	defer s.end()
	for {
		events, more := h.control.Events(since)
		for _, e := range events {
			if s.line(e) != nil {
				return
			}
			since = e.Number
		}
		// Also without any: a follower wants to know that it was heard.
		if s.flush() != nil || !follow {
			return
		}
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}

func eventQuery(r *http.Request) (since int64, follow bool, err error) {
	q, err := query(r, "since", "follow")
	if err != nil {
		return 0, false, err
	}
	if v := q.Get("since"); v != "" {
		if since, err = strconv.ParseInt(v, 10, 64); err != nil || since < 0 {
			return 0, false, bad("write the number of the last event you have", "since is %.60q", v)
		}
	}
	follow, err = flag(q, "follow")
	return since, follow, err
}

func (h *handler) logs(w http.ResponseWriter, r *http.Request) {
	q, err := logQuery(r)
	var s *lines
	if err == nil {
		s, err = h.stream(w)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	defer s.end()
	err = h.control.Logs(r.Context(), q, func(l status.LogLine) error { return s.line(l) })
	if err != nil && r.Context().Err() == nil {
		s.fail(err)
	}
}

// eachLine reads an answer of lines, the last of which may be an error.
func eachLine[T any](ctx context.Context, dec *json.Decoder, each func(T) bool) error {
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return err
		}
		if bytes.HasPrefix(raw, []byte(`{"error":`)) {
			var p Problem
			if json.Unmarshal(raw, &p) == nil && p.Text != "" {
				return &p
			}
		}
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		if !each(v) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
