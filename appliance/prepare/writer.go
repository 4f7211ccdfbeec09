// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// writeSize is one write to a slot.
	writeSize = 1 << 20
	// writeBuffers are filled while others are written.
	writeBuffers = 3
)

// writer writes ascending pieces in large writes beside the goroutine that
// makes them.
type writer struct {
	t     target
	jobs  chan job
	free  chan []byte
	ended chan struct{}
	once  sync.Once

	buf []byte
	at  int64 // of buf

	mu  sync.Mutex
	err error
}

// job is a write, or where done is set a wait for those before it.
type job struct {
	buf  []byte
	at   int64
	done chan struct{}
}

func newWriter(t target) *writer {
	w := &writer{t: t, jobs: make(chan job, writeBuffers), free: make(chan []byte, writeBuffers), ended: make(chan struct{})}
	for range writeBuffers {
		w.free <- make([]byte, 0, writeSize)
	}
	w.buf = <-w.free
	go w.work()
	return w
}

func (w *writer) work() {
	defer close(w.ended)
	var dirty int64
	var syncing chan struct{}
	wait := func() {
		if syncing != nil {
			<-syncing
		}
	}
	defer wait()
	for j := range w.jobs {
		if j.done != nil {
			close(j.done)
			continue
		}
		if w.failed() == nil {
			_, err := w.t.WriteAt(j.buf, j.at)
			w.fail(err)
			if dirty += int64(len(j.buf)); dirty >= syncEvery {
				// Beside the writing: the disk is busy, and so are we.
				dirty = 0
				wait()
				syncing = make(chan struct{})
				go func() {
					defer close(syncing)
					w.fail(flushDisk(w.t))
				}()
			}
		}
		w.free <- j.buf[:0]
	}
}

// flushDisk bounds what a power cut takes of what was written.
func flushDisk(t target) error {
	if f, ok := t.file.(interface{ Fd() uintptr }); ok {
		return unix.Fdatasync(int(f.Fd()))
	}
	return t.Sync()
}

func (w *writer) fail(err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// write takes a copy of b for the place at.
func (w *writer) write(b []byte, at int64) error {
	if len(w.buf) > 0 && at != w.at+int64(len(w.buf)) {
		w.send()
	}
	for len(b) > 0 {
		if len(w.buf) == 0 {
			w.at = at
		}
		n := min(len(b), writeSize-len(w.buf))
		w.buf = append(w.buf, b[:n]...)
		b, at = b[n:], at+int64(n)
		if len(w.buf) == writeSize {
			w.send()
		}
	}
	return w.failed()
}

func (w *writer) send() {
	if len(w.buf) == 0 {
		return
	}
	w.jobs <- job{buf: w.buf, at: w.at}
	w.buf = <-w.free
}

// flush waits until all can be read back.
func (w *writer) flush() error {
	w.send()
	done := make(chan struct{})
	w.jobs <- job{done: done}
	<-done
	return w.failed()
}

// finish writes all and makes it durable.
func (w *writer) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.t.Sync(); err != nil {
		return err
	}
	w.stop()
	return w.failed()
}

// stop ends the work; what was handed over is still written, so that another
// run finds it.
func (w *writer) stop() {
	w.once.Do(func() {
		w.send()
		close(w.jobs)
		<-w.ended
	})
}
