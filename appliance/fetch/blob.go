// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/release"
)

// want is one blob to bring; mediaType is set for a manifest.
type want struct {
	digest    string
	size      int64
	mediaType string
}

// wrongError is bytes that are not the blob's: the source that gave them has
// something else under its name.
type wrongError struct{ text string }

func (e *wrongError) Error() string { return e.text }

// localError is of the box's own disk: no source is at fault, no retry mends it.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// ensure returns when a blob is at hand. It asks each source in turn, round
// after round, until one has given it or all have refused it for good.
func (s *Source) ensure(ctx context.Context, im release.Image, w want) (err error) {
	if there, err := s.store.verified(ctx, w); there || err != nil {
		return err
	}
	p, err := s.store.resume(w)
	if err != nil {
		return full(err)
	}
	s.meter.working(w.digest)
	defer s.meter.idle(w.digest)
	named := false
	defer func() {
		if named {
			return
		}
		// A disk without room gets back what this blob has taken of it.
		var noRoom *NoRoomError
		if dropped := p.drop(!errors.As(err, &noRoom)); err == nil {
			err = dropped
		}
	}()
	for failed := 0; ; failed++ {
		before := p.n
		r, err := s.round(ctx, im, w, p)
		if err != nil {
			return err
		}
		if r.got {
			named = true
			return full(p.finish(s.store, w.digest))
		}
		if p.n > before {
			failed = 0
		}
		delay := max(backoff(failed, s.o.Jitter()), r.after)
		s.meter.waiting(w.digest, fmt.Sprintf("%s: %s", im.Ref, join(r.answers)), failed > 0 || r.after > 0)
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
		// A layout may have been put there meanwhile.
		there, err := s.store.verified(ctx, w)
		if err != nil {
			return err
		}
		if there {
			named = true
			s.meter.add(-p.n)
			return p.drop(false)
		}
	}
}

// Waits between rounds: the first soon, because most failures are single, and
// never more than a minute, because a box that waits for its network should be
// there soon after it.
const (
	backoffFirst = time.Second
	backoffMax   = time.Minute
	// afterMax bounds what a registry may ask for.
	afterMax = 15 * time.Minute
)

func backoff(failed int, jitter float64) time.Duration {
	d := backoffMax
	if failed < 6 {
		d = backoffFirst << failed
	}
	return time.Duration(float64(d) * (0.9 + 0.2*jitter))
}

// round is what one round brought.
type round struct {
	got bool
	// answers of the sources, after is what the most patient of them asked for.
	answers []string
	after   time.Duration
}

// round asks every source once.
func (s *Source) round(ctx context.Context, im release.Image, w want, p *partialBlob) (r round, err error) {
	registry, err := lock.RegistryOf(im.Ref)
	if err != nil {
		return r, err
	}
	refused := 0
	for _, mirror := range append(slices.Clone(s.o.Mirrors(registry)), "") {
		from, err := s.remote(im.Ref, mirror)
		if err != nil {
			refused++
			r.answers = append(r.answers, err.Error())
			continue
		}
		err = s.download(ctx, from, w, p)
		if err == nil {
			return round{got: true}, nil
		}
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		var local *localError
		if errors.As(err, &local) {
			return r, full(local.err)
		}
		var said *lock.AnswerError
		var wrong *wrongError
		switch {
		case errors.As(err, &said):
			if said.Final() {
				refused++
			}
			r.after = max(r.after, min(said.RetryAfter, afterMax))
		case errors.As(err, &wrong):
			refused++
		}
		r.answers = append(r.answers, from.String()+" "+short(err))
	}
	if refused == len(r.answers) {
		return r, &RefusedError{Image: im.Ref, Answers: r.answers}
	}
	return r, nil
}

var errStalled = errors.New("said nothing for " + stall.String())

// download goes on with a blob at one source, and returns nil when p has all
// of it and it is right. After any other error than a *wrongError p holds what
// came, to be gone on with.
func (s *Source) download(ctx context.Context, from *lock.Remote, w want, p *partialBlob) error {
	if p.n == w.size && !p.right(w.digest) {
		if err := s.restart(p); err != nil {
			return err
		}
	}
	if p.n == w.size {
		return nil
	}
	if w.mediaType != "" {
		if err := s.restart(p); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watch.Stop()
	part, err := ask(ctx, from, w, p.n)
	if err != nil {
		var said *lock.AnswerError
		// A range that the source cannot serve: begin at the front.
		if errors.As(err, &said) && said.Status == 416 && p.n > 0 {
			return errors.Join(s.restart(p), errors.New(said.Error()))
		}
		return because(ctx, err)
	}
	defer part.Close()
	if part.Size >= 0 && part.Size != w.size {
		return &wrongError{fmt.Sprintf("has %s with %d bytes where %d are signed", w.digest, part.Size, w.size)}
	}
	if part.At > p.n {
		return fmt.Errorf("answered with the bytes from %d on where %d was asked for", part.At, p.n)
	}
	fresh := p.n == 0
	if err := s.copy(part, w, p, p.n-part.At, func() { watch.Reset(stall) }); err != nil {
		return because(ctx, err)
	}
	if p.right(w.digest) {
		return nil
	}
	if err := s.restart(p); err != nil {
		return err
	}
	if fresh {
		return &wrongError{fmt.Sprintf("has other bytes under the name %s", w.digest)}
	}
	return fmt.Errorf("gave bytes that do not go with those fetched before; all of %s is fetched anew", w.digest)
}

func ask(ctx context.Context, from *lock.Remote, w want, at int64) (lock.Part, error) {
	if w.mediaType != "" {
		return from.Manifest(ctx, w.digest, w.mediaType)
	}
	return from.Blob(ctx, w.digest, at, w.size)
}

// because says why a context ended in place of that it did.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// copy reads an answer to its end, skips what is known already, and takes not
// one byte more than the blob has.
func (s *Source) copy(from io.Reader, w want, p *partialBlob, skip int64, alive func()) error {
	buf := make([]byte, 128<<10)
	for {
		n, err := from.Read(buf)
		alive()
		known := min(int64(n), skip)
		skip -= known
		if b := buf[known:n]; len(b) > 0 {
			if p.n+int64(len(b)) > w.size {
				return errors.Join(s.restart(p), &wrongError{fmt.Sprintf("has more than the %d bytes that are signed under the name %s", w.size, w.digest)})
			}
			wrote, err := p.Write(b)
			s.meter.add(int64(wrote))
			if err != nil {
				return &localError{err}
			}
			s.meter.flowing(w.digest)
		}
		switch {
		case errors.Is(err, io.EOF) && p.n == w.size:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("ended after %d of %d bytes", p.n, w.size)
		case err != nil:
			return fmt.Errorf("broke off after %d of %d bytes: %w", p.n, w.size, err)
		}
	}
}

func (s *Source) restart(p *partialBlob) error {
	s.meter.add(-p.n)
	if err := p.restart(); err != nil {
		return &localError{err}
	}
	return nil
}

// full names a disk without room.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &NoRoomError{}
	}
	return err
}
