// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
)

const (
	// maxRequest bounds the request, maxLine one line of the answer.
	maxRequest = 1 << 20
	maxLine    = 1 << 20
	// The child's peak stays below 64 MiB, of which the program itself takes
	// some: the collector works harder before memory grows, and a box with
	// many processors does not hash on all of them.
	memoryLimit = 32 << 20
	maxProcs    = 4
)

// line is one line of what the child process tells: one of the three.
type line struct {
	Progress *Progress `json:"progress,omitempty"`
	Result   *Result   `json:"result,omitempty"`
	Error    *Failure  `json:"error,omitempty"`
}

// Main is the child process: a Request as JSON from stdin, lines of JSON to
// stdout, the last of them a result or an error. It returns what Run does.
func Main(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), maxProcs))
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(50)
	var mu sync.Mutex
	enc := json.NewEncoder(stdout)
	tell := func(l line) error {
		mu.Lock()
		defer mu.Unlock()
		return enc.Encode(l)
	}
	// Whoever started this and no longer reads is gone: so is the reason to go on.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := func() (Result, error) {
		data, err := io.ReadAll(io.LimitReader(stdin, maxRequest+1))
		if err != nil {
			return Result{}, err
		}
		var q Request
		if len(data) > maxRequest {
			return Result{}, fmt.Errorf("the request has more than %d bytes", maxRequest)
		}
		if err := json.Unmarshal(data, &q); err != nil {
			return Result{}, fmt.Errorf("the request: %w", err)
		}
		return Run(ctx, q, func(p Progress) {
			if tell(line{Progress: &p}) != nil {
				cancel()
			}
		})
	}()
	if err != nil {
		return errors.Join(err, tell(line{Error: FailureOf(err)}))
	}
	return tell(line{Result: &res})
}

// Follow reads what Main writes to its end, and gives the result or a
// *Failure. report, which may be nil, hears the progress.
func Follow(r io.Reader, report func(Progress)) (Result, error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		var l line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			return Result{}, fmt.Errorf("the fetch said %.100q: %w", s.Text(), err)
		}
		switch {
		case l.Error != nil:
			return Result{}, l.Error
		case l.Result != nil:
			return *l.Result, nil
		case l.Progress != nil && report != nil:
			report(*l.Progress)
		}
	}
	if err := s.Err(); err != nil {
		return Result{}, fmt.Errorf("the fetch can't be followed: %w", err)
	}
	return Result{}, &Failure{Code: CodeCancelled, Text: "the fetch ended without a word; what came is kept for the next try"}
}
