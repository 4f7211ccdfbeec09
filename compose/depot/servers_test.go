// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/compose/lock"
)

// respond is a network in memory, so that a bubble's clock can run.
type respond func(q *http.Request) (*http.Response, error)

func (f respond) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

func answerOf(q *http.Request, status int, length int64, body io.Reader, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: h, ContentLength: length, Body: io.NopCloser(body), Request: q}
}

// zeros never ends.
type zeros struct{ n *atomic.Int64 }

func (z zeros) Read(p []byte) (int, error) { z.n.Add(int64(len(p))); clear(p); return len(p), nil }

// slow gives a byte at a time, each after a wait.
type slow struct {
	ctx  context.Context
	wait time.Duration
}

func (s slow) Read(p []byte) (int, error) {
	select {
	case <-time.After(s.wait):
		p[0] = 'x'
		return 1, nil
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

const liar = "https://updates.test/demo"

// TestLyingServers: 1000 bytes from 100 on are asked for. Each answer is
// refused with a sentence, and what may pass by itself is told from the rest.
func TestLyingServers(t *testing.T) {
	digest := digestOf([]byte("x"))
	var read atomic.Int64
	for _, row := range []struct {
		name      string
		answer    respond
		transient bool
		want      string
	}{
		{"truncated, with a length", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 206, 1000, io.MultiReader(bytes.NewReader(make([]byte, 500)), errReader{io.ErrUnexpectedEOF}), "Content-Range", "bytes 100-1099/5000"), nil
		}, true, "unexpected EOF"},
		{"truncated, without", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 206, -1, bytes.NewReader(make([]byte, 500)), "Content-Range", "bytes 100-1099/5000"), nil
		}, true, "ended its answer 500 bytes early"},
		{"another range", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 206, -1, bytes.NewReader(make([]byte, 1000)), "Content-Range", "bytes 0-999/5000"), nil
		}, true, "answered with 1000 bytes from 0 on where 1000 from 100 on were asked for"},
		{"a shorter range", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 206, -1, bytes.NewReader(make([]byte, 10)), "Content-Range", "bytes 100-109/5000"), nil
		}, true, "answered with 10 bytes from 100"},
		{"a range of a shorter file", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 206, -1, bytes.NewReader(make([]byte, 10)), "Content-Range", "bytes 100-109/110"), nil
		}, false, "not a whole copy"},
		{"no range told", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 206, 1000, bytes.NewReader(make([]byte, 1000))), nil
		}, true, "answered with the range"},
		{"range and length differ", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 206, 7, bytes.NewReader(make([]byte, 1000)), "Content-Range", "bytes 100-1099/5000"), nil
		}, true, "and 7 bytes"},
		{"a shorter file, whole", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 200, 500, bytes.NewReader(make([]byte, 500))), nil
		}, false, "has 500 bytes of blob"},
		{"a shorter file, of no length", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 200, -1, bytes.NewReader(make([]byte, 50))), nil
		}, true, "ended its answer after 50 of 100 bytes to be skipped"},
		{"416", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 416, 0, http.NoBody), nil
		}, false, "has no bytes 100 to 1099"},
		{"404", func(q *http.Request) (*http.Response, error) { return answerOf(q, 404, 0, http.NoBody), nil }, false, "has no blob"},
		{"403", func(q *http.Request) (*http.Response, error) { return answerOf(q, 403, 0, http.NoBody), nil }, false, "answered 403 Forbidden"},
		{"500", func(q *http.Request) (*http.Response, error) { return answerOf(q, 500, 0, http.NoBody), nil }, true, "answered 500"},
		{"503, endless", func(q *http.Request) (*http.Response, error) { return answerOf(q, 503, -1, zeros{&read}), nil }, true, "answered 503"},
		{"429", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 429, 0, http.NoBody, "Retry-After", "30"), nil
		}, true, "answered 429"},
		{"204", func(q *http.Request) (*http.Response, error) { return answerOf(q, 204, 0, http.NoBody), nil }, true, "answered 204"},
		{"no network", func(q *http.Request) (*http.Response, error) { return nil, errors.New("no route") }, true, "no route"},
		{"silence", func(q *http.Request) (*http.Response, error) {
			<-q.Context().Done()
			return nil, q.Context().Err()
		}, true, "said less than"},
		{"a byte every 10 s", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 206, 1000, slow{q.Context(), 10 * time.Second}, "Content-Range", "bytes 100-1099/5000"), nil
		}, true, "said less than"},
		{"a loop", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 302, 0, http.NoBody, "Location", q.URL.String()), nil
		}, false, "sends requests elsewhere more than 5 times"},
		{"a downgrade", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 302, 0, http.NoBody, "Location", "http://updates.test/x"), nil
		}, false, "from https to http"},
		{"a strange address", func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 302, 0, http.NoBody, "Location", "file:///etc/passwd"), nil
		}, false, "neither http nor https"},
		{"a foreign certificate", func(q *http.Request) (*http.Response, error) {
			return nil, &url.Error{Op: "Get", URL: "x", Err: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}}
		}, false, "unknown authority"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, err := Open(t.Context(), liar, Options{Transport: row.answer})
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				b, err := span2(d, digest, 100, 1000)
				if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), liar) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%d bytes, %v, want %q", len(b), err, row.want)
				}
				var transient *Transient
				if errors.As(err, &transient) != row.transient {
					t.Errorf("transient is %v: %v", !row.transient, err)
				}
				var said *lock.AnswerError
				if row.name == "429" && (!errors.As(err, &said) || said.RetryAfter != 30*time.Second) {
					t.Errorf("the wish to wait is lost: %v", err)
				}
			})
		})
	}
	if n := read.Load(); n > 1<<20 {
		t.Errorf("read %d bytes of an error's text", n)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// Endless answers are read no further than what was asked for.
func TestEndlessAnswers(t *testing.T) {
	var read atomic.Int64
	d := opened(t, liar, Options{Transport: respond(func(q *http.Request) (*http.Response, error) {
		if strings.Contains(q.URL.Path, "tuf") {
			return answerOf(q, 200, -1, zeros{&read}), nil
		}
		return answerOf(q, 206, -1, zeros{&read}, "Content-Range", "bytes 0-999/*"), nil
	})})
	if _, err := d.Metadata(t.Context(), "timestamp.json", 5000); err == nil || errors.As(err, new(*Transient)) {
		t.Errorf("%v", err)
	}
	if n := read.Load(); n > 64<<10 {
		t.Errorf("read %d bytes of metadata of at most 5000", n)
	}
	if b, err := span2(d, digestOf(nil), 0, 1000); err != nil || len(b) != 1000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	// A length beyond what is taken is not read at all.
	read.Store(0)
	d = opened(t, liar, Options{Transport: respond(func(q *http.Request) (*http.Response, error) {
		return answerOf(q, 200, 1<<40, zeros{&read}), nil
	})})
	if _, err := d.Metadata(t.Context(), "timestamp.json", 5000); err == nil || read.Load() != 0 {
		t.Errorf("%v, %d bytes", err, read.Load())
	}
}

// A registry's answers that go-containerregistry reads by itself are bounded too.
func TestEndlessRegistry(t *testing.T) {
	var read atomic.Int64
	d := opened(t, "oci://registry.test/demo", Options{Transport: respond(func(q *http.Request) (*http.Response, error) {
		return answerOf(q, 200, -1, zeros{&read}), nil
	})})
	if _, err := d.Metadata(t.Context(), "timestamp.json", 5000); err == nil {
		t.Error("zeros were taken for metadata")
	}
	if n := read.Load(); n > 3*maxSmall {
		t.Errorf("read %d bytes", n)
	}
}

// A server that ignores ranges: a blob that is read in pieces is sent once.
func TestServerWithoutRanges(t *testing.T) {
	l, blob, _ := sample()
	want := l[blobPath(blob)]
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked++
		w.Header().Set("Content-Length", fmt.Sprint(len(want)))
		w.Write(want)
	}))
	defer srv.Close()
	d := opened(t, srv.URL, Options{})
	sequential := d.(interface{ Sequential() bool }).Sequential
	if sequential() {
		t.Error("it is taken for one without ranges before it was asked")
	}
	for at := int64(10); at+5000 < int64(len(want)); at += 12_000 {
		b, err := span2(d, blob, at, 5000)
		if err != nil || !bytes.Equal(b, want[at:at+5000]) {
			t.Fatalf("at %d: %d bytes, %v", at, len(b), err)
		}
	}
	if !sequential() || asked != 1 {
		t.Errorf("asked %d times, sequential %v", asked, sequential())
	}
	// Backwards it has to begin anew; another blob, or half a piece, too.
	if b, err := span2(d, blob, 0, 10); err != nil || !bytes.Equal(b, want[:10]) || asked != 2 {
		t.Errorf("%q %v, asked %d times", b, err, asked)
	}
	// A piece that nobody read to its end.
	r, err := d.Blob(t.Context(), blob, 20, 1000)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(r, make([]byte, 100))
	r.Close()
	if b, err := span2(d, blob, 120, 10); err != nil || !bytes.Equal(b, want[120:130]) || asked != 2 {
		t.Errorf("%q %v, asked %d times", b, err, asked)
	}
	// A context that ended with its piece does not end the next one's.
	ctx, cancel := context.WithCancel(t.Context())
	r, err = d.Blob(ctx, blob, 200, 10)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadAll(r)
	r.Close()
	cancel()
	if b, err := span2(d, blob, 250, 10); err != nil || !bytes.Equal(b, want[250:260]) {
		t.Errorf("%q %v", b, err)
	}
	// Nor is the rest of an answer kept that ended with its context.
	ctx, cancel = context.WithCancel(t.Context())
	if r, err = d.Blob(ctx, blob, 260, 20); err != nil {
		t.Fatal(err)
	}
	cancel()
	r.Close()
	if b, err := span2(d, blob, 300, 10); err != nil || !bytes.Equal(b, want[300:310]) {
		t.Errorf("%q %v", b, err)
	}
}

// Requests that are sent elsewhere, once, and a context that ends.
func TestRedirectAndCancel(t *testing.T) {
	l, blob, _ := sample()
	dir := t.TempDir()
	l.write(t, dir)
	far := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer far.Close()
	near := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, far.URL+q.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer near.Close()
	d := opened(t, near.URL, Options{})
	if b, err := span2(d, blob, 1000, 5); err != nil || !bytes.Equal(b, l[blobPath(blob)][1000:1005]) {
		t.Errorf("%q %v", b, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Blob(ctx, blob, 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := d.Metadata(ctx, "timestamp.json", 100); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// 403 is how object stores say that a file of metadata is not there.
func TestForbiddenMetadata(t *testing.T) {
	d := opened(t, liar, Options{Transport: respond(func(q *http.Request) (*http.Response, error) { return answerOf(q, 403, 0, http.NoBody), nil })})
	if _, err := d.Metadata(t.Context(), "2.root.json", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// A bandwidth limit is kept, and a slow reader is no stalled server.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var read atomic.Int64
		d, err := Open(t.Context(), liar, Options{Limit: 1 << 20, Transport: respond(func(q *http.Request) (*http.Response, error) {
			return answerOf(q, 206, -1, zeros{&read}, "Content-Range", fmt.Sprintf("bytes 0-%d/*", 10<<20-1)), nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		began := time.Now()
		if b, err := span2(d, digestOf(nil), 0, 10<<20); err != nil || len(b) != 10<<20 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("10 MiB at 1 MiB/s took %s", took)
		}
		r, err := d.Blob(t.Context(), digestOf(nil), 0, 10<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for range 3 {
			if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			<-time.After(10 * stall) // the reader takes its time
		}
	})
}

// Metadata of a registry is what its digest says.
func TestRegistryMetadata(t *testing.T) {
	l, _, manifest := sample()
	reg := serveRegistry(t)
	l.push(t, reg.URL, "demo", manifest)
	evil := false
	u, err := url.Parse(reg.URL)
	if err != nil {
		t.Fatal(err)
	}
	d := opened(t, "oci+http://"+u.Host+"/demo", Options{Transport: respond(func(q *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(q)
		if err == nil && evil && strings.Contains(q.URL.Path, "/blobs/") {
			b, _ := io.ReadAll(resp.Body)
			b[0] ^= 1
			resp.Body = io.NopCloser(bytes.NewReader(b))
		}
		return resp, err
	})})
	if _, err := d.Metadata(t.Context(), "7.targets.json", 100); err != nil {
		t.Fatal(err)
	}
	evil = true
	if _, err := d.Metadata(t.Context(), "7.targets.json", 100); err == nil || !strings.Contains(err.Error(), "has other bytes under the name") {
		t.Errorf("%v", err)
	}
	if _, err := opened(t, "oci+http://"+u.Host+"/nothing", Options{}).Metadata(t.Context(), "timestamp.json", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
