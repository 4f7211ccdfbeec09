// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/holdfast/holdfast/compose/depot"
	"github.com/holdfast/holdfast/compose/lock"
)

// Waits between tries: the first soon, because most failures are single, and
// never more than a minute, because a box that waits for its network should be
// there soon after it.
const (
	backoffFirst = time.Second
	backoffMax   = time.Minute
	// afterMax bounds what a server may ask for.
	afterMax = 15 * time.Minute
)

func backoff(failed int, jitter float64) time.Duration {
	d := backoffMax
	if failed < 6 {
		d = backoffFirst << failed
	}
	return time.Duration(float64(d) * (0.9 + 0.2*jitter))
}

// retry tries until it goes well, an error is final or ctx ends. try says
// whether it got anywhere: the waits then begin anew.
func (r *run) retry(ctx context.Context, what string, try func() (bool, error)) error {
	for failed := 0; ; failed++ {
		got, err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return r.ended(ctx, what, err)
		}
		var transient *depot.Transient
		if !errors.As(err, &transient) {
			return err
		}
		if got {
			failed = 0
		}
		delay := backoff(failed, rand.Float64())
		var said *lock.AnswerError
		if errors.As(err, &said) {
			delay = max(delay, min(said.RetryAfter, afterMax))
		}
		if failed > 0 { // a first failure is no news yet
			r.meter.waiting(transient.Error())
		}
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return r.ended(ctx, what, err)
		}
	}
}

// ended says why there are no more tries.
func (r *run) ended(ctx context.Context, what string, last error) error {
	if errors.Is(context.Cause(ctx), errDeadline) {
		if errors.Is(last, context.DeadlineExceeded) || errors.Is(last, errDeadline) {
			last = errDeadline
		}
		return &UnreachableError{what, last}
	}
	return context.Cause(ctx)
}

// localError is of the box's own disk: no place is at fault, no retry mends it.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// span reads length bytes of a blob from offset on and hands them to take, in
// order and each once, however often it has to ask. An error of take ends it.
func (r *run) span(ctx context.Context, what, digest string, offset, length int64, take func([]byte) error) error {
	buf := r.buffers.get(readSize)
	defer r.buffers.put(buf)
	return r.pull(ctx, what, digest, offset, length, func(left int64) []byte { return buf[:min(int64(len(buf)), left)] }, take)
}

// fill reads a part of a blob into dst.
func (r *run) fill(ctx context.Context, what, digest string, offset int64, dst []byte) error {
	return r.pull(ctx, what, digest, offset, int64(len(dst)),
		func(left int64) []byte { return dst[int64(len(dst))-left:] },
		func([]byte) error { return nil })
}

// pull reads a part of a blob into what room gives for the bytes that are left.
func (r *run) pull(ctx context.Context, what, digest string, offset, length int64, room func(left int64) []byte, take func([]byte) error) error {
	err := r.retry(ctx, what, func() (got bool, err error) {
		if length == 0 {
			return false, nil
		}
		b, err := r.depot.Blob(ctx, digest, offset, length)
		if err != nil {
			return false, err
		}
		defer b.Close()
		for length > 0 {
			buf := room(length)
			n, err := b.Read(buf)
			if n > 0 {
				r.meter.fetched(int64(n))
				if err := take(buf[:n]); err != nil {
					return got, &localError{err}
				}
				got, offset, length = true, offset+int64(n), length-int64(n)
			}
			if length > 0 && errors.Is(err, io.EOF) {
				return got, &SourceError{what, errors.New("its file is shorter than it was")}
			}
			if length > 0 && err != nil {
				return got, err
			}
		}
		return got, nil
	})
	var local *localError
	var source *SourceError
	var unreachable *UnreachableError
	switch {
	case err == nil, errors.As(err, &source), errors.As(err, &unreachable):
		return err
	case errors.As(err, &local):
		return local.err
	case ctx.Err() != nil:
		return err
	}
	return &SourceError{what, err}
}
