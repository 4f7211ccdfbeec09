// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// RefusedError is a release whose bytes are not what its manifest says: nothing
// of it may be used, and trying again is of no use until the place has another
// copy.
type RefusedError struct {
	// What it is, e.g. "the root image", and Text what is wrong with it.
	What, Text string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the release is refused: %s %s", e.What, e.Text)
}

// SourceError is a place that does not hand the release out.
type SourceError struct {
	// What was asked for.
	What string
	Err  error
}

func (e *SourceError) Error() string { return fmt.Sprintf("%s cannot be had: %v", e.What, e.Err) }
func (e *SourceError) Unwrap() error { return e.Err }

// UnreachableError is a place that could not be read until the deadline.
type UnreachableError struct {
	What string
	Err  error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%s could not be fetched in time: %v; what came is kept for the next try", e.What, e.Err)
}
func (e *UnreachableError) Unwrap() error { return e.Err }

// NoRoomError is a box that is too small for the release.
type NoRoomError struct {
	// Where it does not fit: "the state volume", "the slot", "the ESP".
	Where string
	// Need and Free are bytes; Need is 0 where it filled up meanwhile.
	Need, Free int64
}

func (e *NoRoomError) Error() string {
	if e.Need == 0 {
		return fmt.Sprintf("%s filled up while the release was fetched; free some room and try again", e.Where)
	}
	return fmt.Sprintf("the release needs %s on %s and %s are free: %s are missing", size(e.Need), e.Where, size(e.Free), size(e.Need-e.Free))
}

// ErrBusy is another run at work on the same box.
var ErrBusy = errors.New("a release is being fetched already; wait for it, or cancel it")

// errDeadline is the cause of a context that ended with the request's deadline.
var errDeadline = errors.New("the deadline of the fetch has passed")

// Codes of a Failure.
const (
	CodeRefused     = "refused"
	CodeSource      = "source"
	CodeUnreachable = "unreachable"
	CodeNoRoom      = "no-room"
	CodeBusy        = "busy"
	CodeCancelled   = "cancelled"
	CodeInternal    = "internal"
)

// Failure is a run that did not go well, as the child process tells it.
type Failure struct {
	// Code is one of the Code constants.
	Code string `json:"code"`
	Text string `json:"text"`
	// Need and Free are those of a *NoRoomError, in bytes.
	Need int64 `json:"need,omitempty"`
	Free int64 `json:"free,omitempty"`
}

func (e *Failure) Error() string { return e.Text }

// FailureOf is an error of Run as the child process tells it.
func FailureOf(err error) *Failure {
	f := &Failure{Code: CodeInternal, Text: err.Error()}
	var told *Failure
	var refused *RefusedError
	var source *SourceError
	var unreachable *UnreachableError
	var room *NoRoomError
	switch {
	case errors.As(err, &told):
		return told
	case errors.As(err, &refused):
		f.Code = CodeRefused
	case errors.As(err, &room):
		f.Code, f.Need, f.Free = CodeNoRoom, room.Need, room.Free
	case errors.As(err, &unreachable):
		f.Code = CodeUnreachable
	case errors.As(err, &source):
		f.Code = CodeSource
	case errors.Is(err, ErrBusy):
		f.Code = CodeBusy
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		f.Code, f.Text = CodeCancelled, "the fetch was cancelled; what came is kept for the next try"
	}
	return f
}

// full names a disk without room.
func full(err error, where string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &NoRoomError{Where: where}
	}
	return err
}

// size prints bytes as people read them.
func size(n int64) string {
	switch {
	case n >= 10_000_000_000:
		return fmt.Sprintf("%d GB", n/1_000_000_000)
	case n >= 1_000_000_000:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1_000_000:
		return fmt.Sprintf("%d MB", n/1_000_000)
	}
	return fmt.Sprintf("%d kB", (n+999)/1000)
}
