// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/holdfast/holdfast/compose/lock"
)

// ranged reads parts of blobs over the network. A server that ignores ranges
// sends the whole: what comes before is skipped, and the rest of the answer is
// kept for the next call, so that reading a blob in pieces from front to end
// reads it once.
type ranged struct {
	name string
	line *line
	span func(ctx context.Context, digest string, offset, length int64) (lock.Part, error)

	mu sync.Mutex
	// whole is true once the server has ignored a range.
	whole  bool
	parked *body
}

func newRanged(name string, l *line, span func(ctx context.Context, digest string, offset, length int64) (lock.Part, error)) *ranged {
	return &ranged{name: name, line: l, span: span}
}

func (r *ranged) Blob(ctx context.Context, digest string, offset, length int64) (io.ReadCloser, error) {
	if err := checkSpan(digest, offset, length); err != nil {
		return nil, err
	}
	if length == 0 {
		return http.NoBody, nil
	}
	if b := r.take(digest, offset); b != nil {
		return r.cut(ctx, b, offset, length)
	}
	b, err := r.line.ask(ctx, func(ctx context.Context) (lock.Part, error) { return r.span(ctx, digest, offset, length) })
	if err == nil {
		b.digest = digest
		return r.cut(ctx, b, offset, length)
	}
	var said *lock.AnswerError
	if errors.As(err, &said) {
		switch said.Status {
		case http.StatusNotFound, http.StatusGone:
			return nil, missing(r.name, "blob "+digest)
		case http.StatusRequestedRangeNotSatisfiable:
			return nil, fmt.Errorf("%s has no bytes %d to %d of blob %s; it is not a whole copy of the release", r.name, offset, offset+length-1, digest)
		}
	}
	return nil, tell(r.name, err)
}

// cut gives what was asked for of an answer.
func (r *ranged) cut(ctx context.Context, b *body, offset, length int64) (_ io.ReadCloser, err error) {
	b.follow(ctx)
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	switch {
	case b.size >= 0 && offset+length > b.size:
		return nil, short(r.name, b.digest, b.size, offset+length)
	case b.at > offset || !b.whole && (b.at != offset || b.left >= 0 && b.left != length):
		return nil, &Transient{fmt.Errorf("%s answered with %d bytes from %d on where %d from %d on were asked for", r.name, b.left, b.at, length, offset)}
	}
	p := &piece{place: r.name, b: b, left: length}
	if b.whole && b.left != length {
		r.mu.Lock()
		r.whole = true
		r.mu.Unlock()
		p.park = r.park
		if err := b.skip(offset - b.at); err != nil {
			return nil, tell(r.name, err)
		}
	}
	return p, nil
}

// take gives the answer that was parked, if it can be gone on with.
func (r *ranged) take(digest string, offset int64) *body {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.parked
	if b == nil || b.digest != digest || b.at > offset {
		return nil
	}
	r.parked = nil
	return b
}

// park keeps one answer; the one before is let go.
func (r *ranged) park(b *body) {
	if !b.follow(context.Background()) {
		b.Close()
		return
	}
	r.mu.Lock()
	old := r.parked
	r.parked = b
	r.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

// read reads a small file.
func (r *ranged) read(ctx context.Context, name string, limit int64, get func(context.Context) (lock.Part, error)) ([]byte, error) {
	b, err := r.line.ask(ctx, get)
	if err != nil {
		return nil, tell(r.name, err)
	}
	defer b.Close()
	if b.size > limit {
		return nil, fmt.Errorf("%s: %s %w: %d bytes of at most %d", r.name, name, errLong, b.size, limit)
	}
	data, err := readAll(b, name, limit)
	if err != nil {
		return nil, tell(r.name, err)
	}
	return data, nil
}

// Sequential is true once the server has ignored a range: what is read in
// pieces is then best read in order, one piece at a time.
func (r *ranged) Sequential() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.whole
}

func (r *ranged) Offline() bool  { return false }
func (r *ranged) String() string { return r.name }

func (r *ranged) Close() error {
	r.mu.Lock()
	b := r.parked
	r.parked = nil
	r.mu.Unlock()
	if b != nil {
		b.Close()
	}
	r.line.client.CloseIdleConnections()
	return nil
}

// piece is what was asked for of an answer.
type piece struct {
	place string
	b     *body
	left  int64
	// park takes an answer that can be gone on with; nil closes it.
	park func(*body)
	bad  bool
}

func (p *piece) Read(buf []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	if int64(len(buf)) > p.left {
		buf = buf[:p.left]
	}
	n, err := p.b.Read(buf)
	p.left -= int64(n)
	switch {
	case p.left == 0:
		return n, nil
	case errors.Is(err, io.EOF):
		p.bad = true
		return n, &Transient{fmt.Errorf("%s ended its answer %d bytes early", p.place, p.left)}
	case err != nil:
		p.bad = true
		return n, tell(p.place, err)
	}
	return n, nil
}

func (p *piece) Close() error {
	b := p.b
	if b == nil {
		return nil
	}
	p.b = nil
	if p.park != nil && !p.bad && b.size != b.at {
		p.park(b)
		return nil
	}
	b.Close()
	return nil
}
