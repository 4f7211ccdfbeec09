// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/compose/depot"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/release"
)

// A run is cut off after N bytes and run again: what came is not fetched twice,
// but for the requests that were under way.
func TestCutOffAndResumed(t *testing.T) {
	big := make1(t, parts{version: "2.0.0", root: squashfs(noise(7, 10<<20)), uki: noise(8, 1<<20), images: nil})
	for _, running := range []bool{false, true} {
		for after := int64(1); after < big.total; after += 4_900_000 {
			b := newBox(t, nil)
			ok(t, os.Truncate(b.slots[1], 12<<20))
			if running { // the slot is not empty
				f, err := os.OpenFile(b.slots[1], os.O_RDWR, 0)
				ok(t, err)
				_, err = f.WriteAt(noise(9, 9<<20), 0)
				ok(t, errors.Join(err, f.Close()))
			}
			d := tapOf(t, big.dir)
			cut, cancel := context.WithCancel(t.Context())
			d.after, d.cut = after, cancel
			if _, err := from(cut, d, b.request(big), nil); !errors.Is(err, context.Canceled) {
				t.Fatalf("cut off after %d bytes: %v", after, err)
			}
			first := d.n.Load()
			again := tapOf(t, big.dir)
			res, err := from(t.Context(), again, b.request(big), nil)
			ok(t, err)
			b.check(big, res)
			if twice := first + again.n.Load() - big.total; twice > ahead*maxRun+readSize || twice < 0 {
				t.Errorf("cut off after %s: %s were fetched twice", mb(first), mb(twice))
			}
		}
	}
}

// The child process is killed at several points; the next one goes on.
func TestKilledAndResumed(t *testing.T) {
	p := makePair(t)
	files := http.FileServer(http.Dir(p.new.dir))
	for _, after := range []int64{3_000, 300_000, 1_500_000, 3_000_000} {
		b := newBox(t, nil)
		var sent atomic.Int64
		reached := make(chan struct{})
		var once sync.Once
		stopped := atomic.Bool{}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			files.ServeHTTP(&counted{w, func(n int) {
				if sent.Add(int64(n)) >= after && !stopped.Load() {
					once.Do(func() { close(reached) })
					<-q.Context().Done()
				}
			}}, q)
		}))
		q := b.request(p.new)
		q.Ref = srv.URL
		in, err := json.Marshal(q)
		ok(t, err)
		cmd := exec.Command(os.Args[0])
		cmd.Env, cmd.Stdin = append(os.Environ(), "HOLDFAST_PREPARE_CHILD=1"), bytes.NewReader(in)
		ok(t, cmd.Start())
		select {
		case <-reached:
		case <-time.After(time.Minute):
			t.Fatalf("waited for %d bytes to be fetched", after)
		}
		ok(t, cmd.Process.Kill())
		cmd.Wait()
		stopped.Store(true)
		first := sent.Swap(0)
		res, err := Run(t.Context(), q, nil)
		ok(t, err)
		b.check(p.new, res)
		if twice := first + sent.Load() - p.new.total; twice > ahead*(maxRun+1<<20) { // and a socket's buffers
			t.Errorf("killed after %s: %s were fetched twice", mb(first), mb(twice))
		}
		srv.Close()
	}
}

type counted struct {
	http.ResponseWriter
	n func(int)
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n(n)
	return n, err
}

// names says what each blob of a release is.
func names(t testing.TB, m made) map[string]string {
	t.Helper()
	p := m.desc.Parts
	out := map[string]string{m.digest: "manifest", m.desc.Stack: "stack", p.UKI.Digest: "uki", p.UKIChunks.Digest: "uki index",
		p.Root.Digest: "root", p.RootChunks.Digest: "root index", p.Boot.Digest: "boot", p.SBOM.Digest: "sbom"}
	for _, im := range m.desc.Images {
		out[im.Digest] = "image manifest"
		raw, err := os.ReadFile(blobIn(m.dir, im.Digest))
		ok(t, err)
		blobs, err := im.Blobs(raw)
		ok(t, err)
		for _, b := range blobs {
			out[b.Digest] = "layer or config"
		}
	}
	entries, err := os.ReadDir(filepath.Join(m.dir, blobDir))
	ok(t, err)
	for _, e := range entries {
		if out["sha256:"+e.Name()] == "" {
			out["sha256:"+e.Name()] = "description"
		}
	}
	return out
}

// One flipped bit in each blob, of some at start, middle and end: refused, and
// nothing that is wrong gets a name. Then the place has it right, and all goes
// on.
func TestFlippedBits(t *testing.T) {
	p := makePair(t)
	for digest, name := range names(t, p.new) {
		st, err := os.Stat(blobIn(p.new.dir, digest))
		ok(t, err)
		places := []int64{0, st.Size() / 2, st.Size() - 1}
		if name != "root" && name != "manifest" {
			places = places[1:2]
		}
		for _, at := range places {
			b := newBox(t, &p.old)
			q := b.request(p.new)
			if name == "root" {
				q.Running = "" // fetched whole
			}
			d := tapOf(t, p.new.dir)
			d.harm = func(asked string, offset, _ int64) (func([]byte), error) {
				if asked != digest {
					return nil, nil
				}
				return func(buf []byte) {
					if i := at - offset; i >= 0 && i < int64(len(buf)) {
						buf[i] ^= 0x10
					}
					offset += int64(len(buf))
				}, nil
			}
			_, err := from(t.Context(), d, q, nil)
			var refused *RefusedError
			if !errors.As(err, &refused) || FailureOf(err).Code != CodeRefused || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s at %d: %v", name, at, err)
				continue
			}
			for _, path := range []string{blobIn(ReleaseDir(b.state, p.new.digest), digest), blobIn(ImagesDir(b.state), digest)} {
				if _, err := os.Stat(path); err == nil {
					t.Errorf("%s at %d: there is %s", name, at, path)
				}
			}
			if name == "uki" || name == "boot" {
				for _, f := range []string{UKIFile, BootFile} {
					if got, err := os.ReadFile(filepath.Join(ReleaseDir(b.state, p.new.digest), f)); err == nil && !bytes.Equal(got, p.new.uki) {
						t.Errorf("%s at %d: there is %s", name, at, f)
					}
				}
			}
			res, err := Run(t.Context(), b.request(p.new), nil)
			if err != nil {
				t.Errorf("%s at %d, then right: %v", name, at, err)
				continue
			}
			b.check(p.new, res)
		}
	}
}

// A release whose own description is wrong about its root.
func TestWrongRootHash(t *testing.T) {
	p := makePair(t)
	bad := make1(t, parts{version: "1.2.0", root: p.new.root, uki: p.new.uki, edit: func(d *release.Description) {
		d.OS.RootHash = strings.Repeat("ab", 32)
	}})
	b := newBox(t, &p.old)
	_, err := Run(t.Context(), b.request(bad), nil)
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "root hash") {
		t.Fatalf("%v", err)
	}
	slot, err := os.ReadFile(b.slots[1])
	ok(t, err)
	if !bytes.Equal(slot[:4096], make([]byte, 4096)) {
		t.Error("the slot still begins like a root")
	}
	res, err := Run(t.Context(), b.request(p.new), nil)
	ok(t, err)
	b.check(p.new, res)
	if res.Parts["root"].Fetched > 400_000 {
		t.Errorf("%+v", res.Parts["root"])
	}
}

// Connections that break again and again cost time and no byte.
func TestBrokenConnections(t *testing.T) {
	p := makePair(t)
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, nil)
		d := tapOf(t, p.new.dir)
		d.broken = 77_777
		res, err := from(t.Context(), d, b.request(p.new), nil)
		ok(t, err)
		b.check(p.new, res)
		if d.n.Load() != p.new.total || res.Fetched != p.new.total {
			t.Errorf("gave %d, counted %d, the release has %d", d.n.Load(), res.Fetched, p.new.total)
		}
	})
}

// What may mend itself is tried again, with growing waits, and a server's wish
// is heeded; the deadline ends it.
func TestRetries(t *testing.T) {
	p := makePair(t)
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, &p.old)
		d := tapOf(t, p.new.dir)
		asked := 0
		var waiting []string
		d.harm = func(string, int64, int64) (func([]byte), error) {
			switch asked++; {
			case asked == 3:
				return nil, &depot.Transient{Err: fmt.Errorf("place %w", &lock.AnswerError{Status: 429, RetryAfter: 5 * time.Minute})}
			case asked%4 != 0:
				return nil, &depot.Transient{Err: fmt.Errorf("no answer, number %d", asked)}
			}
			return nil, nil
		}
		began := time.Now()
		res, err := from(t.Context(), d, b.request(p.new), func(g Progress) {
			if g.Waiting != "" {
				waiting = append(waiting, g.Waiting)
			}
		})
		ok(t, err)
		b.check(p.new, res)
		if took := time.Since(began); took < 5*time.Minute || took > 20*time.Minute || len(waiting) == 0 || !strings.Contains(waiting[0], "no answer") && !strings.Contains(waiting[0], "429") {
			t.Errorf("took %s, said %.3q", took, waiting)
		}
		// Nothing at all, until the deadline.
		b = newBox(t, nil)
		d.harm = func(string, int64, int64) (func([]byte), error) {
			return nil, &depot.Transient{Err: errors.New("no route")}
		}
		q := b.request(p.new)
		q.Deadline = time.Now().Add(time.Hour)
		_, err = from(t.Context(), d, q, nil)
		var unreachable *UnreachableError
		if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), "no route") || FailureOf(err).Code != CodeUnreachable || time.Now().Before(q.Deadline) {
			t.Errorf("%v", err)
		}
	})
}
