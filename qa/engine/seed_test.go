// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/release"
)

// shop is a registry on the loopback that can be away, and can stop in the
// middle of a blob. It notes what it is asked for.
type shop struct {
	t    *testing.T
	addr string
	h    http.Handler

	mu    sync.Mutex
	srv   *http.Server
	asked []string
	// stopAt is the blob whose first answer ends after half of it; stopped is
	// closed then, and the connection stays open until over is closed.
	stopAt        string
	stopped, over chan struct{}
}

// newShop reserves an address; nobody answers there yet.
func newShop(t *testing.T) *shop {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{t: t, addr: l.Addr().String(), h: registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		stopped: make(chan struct{}), over: make(chan struct{})}
	l.Close()
	t.Cleanup(s.close)
	return s
}

func (s *shop) ref(path string) string { return s.addr + "/" + path }

// open answers from now on.
func (s *shop) open() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv = &http.Server{Handler: s}
	go s.srv.Serve(l)
}

func (s *shop) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv != nil {
		s.srv.Close()
		s.srv = nil
	}
}

// push fills the registry; it must be open.
func (s *shop) push(images map[string]v1.Image) {
	s.t.Helper()
	for ref, img := range images {
		to, err := name.ParseReference(ref)
		if err != nil {
			s.t.Fatal(err)
		}
		if err := remote.Write(to, img, remote.WithContext(s.t.Context())); err != nil {
			s.t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = nil
}

func (s *shop) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	s.mu.Lock()
	if q.Method == http.MethodGet && !strings.HasSuffix(q.URL.Path, "/v2/") {
		s.asked = append(s.asked, q.URL.Path[strings.LastIndex(q.URL.Path, "/")+1:]+" "+q.Header.Get("Range"))
	}
	stop := s.stopAt != "" && q.Method == http.MethodGet && strings.HasSuffix(q.URL.Path, s.stopAt)
	if stop {
		s.stopAt = ""
	}
	s.mu.Unlock()
	if stop {
		w = &half{ResponseWriter: w, s: s, q: q}
	}
	s.h.ServeHTTP(w, q)
}

// half sends half of what was announced.
type half struct {
	http.ResponseWriter
	s    *shop
	q    *http.Request
	sent int64
}

func (h *half) Write(b []byte) (int, error) {
	var whole int64
	fmt.Sscan(h.Header().Get("Content-Length"), &whole)
	n := min(int64(len(b)), whole/2-h.sent)
	h.ResponseWriter.Write(b[:n])
	if h.sent += n; h.sent < whole/2 {
		return int(n), nil
	}
	h.ResponseWriter.(http.Flusher).Flush()
	close(h.s.stopped)
	select {
	case <-h.s.over:
	case <-h.q.Context().Done():
	}
	panic(http.ErrAbortHandler)
}

// requests are what was asked for since the last push.
func (s *shop) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

const seedStack = `
services:
  db:
    image: %s
    command: [serve]
    healthcheck: {test: [CMD, /standin, check], interval: 1s, start_period: 10s, start_interval: 200ms}
  web:
    image: %s
    command: [serve, --need, /etc/web.conf]
    volumes: ["./web.conf:/etc/web.conf:ro"]
    depends_on: {db: {condition: service_healthy}}
`

// seed makes a seed release whose images are named in the shop.
func (s *shop) seed(b *box) map[string]v1.Image {
	b.outside = true // the registry is on the tests' loopback
	db, web := s.ref("shop/db:1.0.0"), s.ref("shop/web:1.0.0")
	_, images := b.release(fmt.Sprintf(seedStack, db, web), release.Seed, db, web)
	return images
}

func layerOf(t *testing.T, img v1.Image) string {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return m.Layers[0].Digest.String()
}

// condition is the report's condition of a code, empty where it has none.
func condition(r status.Report, code string) status.Condition {
	for _, c := range r.Conditions {
		if c.Code == code {
			return c
		}
	}
	return status.Condition{}
}

// gone expects that nothing of a fetch is left on state.
func (b *box) gone() {
	b.t.Helper()
	if _, err := os.Stat(filepath.Join(b.dir, "state", "fetch")); !errors.Is(err, os.ErrNotExist) {
		b.t.Errorf("the folder of fetched blobs is still there: %v", err)
	}
}

// TestSeedWaitsForItsRegistry: a box whose registry is away says so and waits;
// when it is there the stack comes up, and no later start asks it again.
func TestSeedWaitsForItsRegistry(t *testing.T) {
	b, s := newBox(t), newShop(t)
	images := s.seed(b)
	b.start()
	r := b.await("a box that says what it waits for", func(r status.Report) bool { return condition(r, "images-unreachable").Code != "" })
	if c := condition(r, "images-unreachable"); !strings.Contains(c.Text, s.addr) || c.Remedy == "" || r.Stack != "starting" {
		t.Errorf("%s: %+v", r.Stack, c)
	}
	if w := service(r, "web"); w.State != "waiting" || !strings.Contains(w.Reason, "waiting for the stack's images: "+s.addr) {
		t.Errorf("web is %+v", w)
	}
	s.open()
	s.push(images)
	r = b.healthy()
	if condition(r, "images-unreachable").Code != "" || r.Timings.ImagesLoaded == 0 {
		t.Errorf("%+v", r)
	}
	for ref, img := range images {
		h, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		b.docker("image", "inspect", ref[:strings.LastIndex(ref, ":")]+"@"+h.String())
	}
	b.gone()
	s.close()
	before := b.containers()
	b.signal(syscall.SIGKILL)
	b.start()
	b.healthy()
	for name, c := range b.containers() {
		if c.ID != before[name].ID {
			t.Errorf("%s was made anew", name)
		}
	}
}

// TestSeedGoesOnWhereItStopped kills the daemon in the middle of a blob.
func TestSeedGoesOnWhereItStopped(t *testing.T) {
	b, s := newBox(t), newShop(t)
	images := s.seed(b)
	s.open()
	s.push(images)
	layer := layerOf(t, images[s.ref("shop/web:1.0.0")])
	s.stopAt = layer
	b.start()
	select {
	case <-s.stopped:
	case <-time.After(patience):
		t.Fatalf("waited for the layer of web to be asked for:\n%s", b.out.String())
	}
	partial := filepath.Join(b.dir, "state/fetch/unverified", strings.TrimPrefix(layer, "sha256:"))
	grown(t, partial, 1<<20)
	b.signal(syscall.SIGKILL)
	// What was on its way beside the layer may be asked for again.
	underway := map[string]bool{layer: true}
	for _, q := range s.requests() {
		digest, _, _ := strings.Cut(q, " ")
		_, err := os.Stat(filepath.Join(b.dir, "state/fetch/blobs/sha256", strings.TrimPrefix(digest, "sha256:")))
		underway[digest] = err != nil && partOf(t, images[s.ref("shop/web:1.0.0")], digest) || digest == layer
	}
	close(s.over)
	first := len(s.requests())
	b.start()
	b.healthy()
	b.gone()
	count := map[string]int{}
	for i, q := range s.requests() {
		digest, span, _ := strings.Cut(q, " ")
		count[digest]++
		if digest == layer && i >= first && !strings.HasPrefix(span, "bytes=") {
			t.Errorf("the broken layer was asked for from its start: %s", q)
		}
	}
	for digest, n := range count {
		if n > 2 || n == 2 && !underway[digest] || n == 1 && digest == layer {
			t.Errorf("%s was asked for %d times", digest, n)
		}
	}
}

// partOf says whether a blob is an image's manifest, config or a layer.
func partOf(t *testing.T, img v1.Image, digest string) bool {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	own, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return own.String() == digest || m.Config.Digest.String() == digest || slices.ContainsFunc(m.Layers, func(l v1.Descriptor) bool { return l.Digest.String() == digest })
}

// grown waits until a file has at least n bytes.
func grown(t *testing.T, path string, n int64) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		if st, err := os.Stat(path); err == nil && st.Size() >= n {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited for %s to have %d bytes", path, n)
		}
	}
}

// TestSeedFromLayout: without any network, an OCI layout put on the box will
// do, also one that comes while it waits, and it stays as it is.
func TestSeedFromLayout(t *testing.T) {
	b, s := newBox(t), newShop(t)
	images := s.seed(b)
	b.start()
	b.await("a box that waits", func(r status.Report) bool { return condition(r, "images-unreachable").Code != "" })
	made := filepath.Join(b.dir, "made")
	p, err := layout.Write(made, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		if err := p.AppendImage(img); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(made, filepath.Join(b.dir, "state/images")); err != nil {
		t.Fatal(err)
	}
	b.healthy()
	b.gone()
	if _, err := os.Stat(filepath.Join(b.dir, "state/images/index.json")); err != nil {
		t.Error(err)
	}
	if n := len(s.requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// TestSeedRefused: an image that its registry does not have holds the stack,
// and the text says who refused it.
func TestSeedRefused(t *testing.T) {
	b, s := newBox(t), newShop(t)
	images := s.seed(b)
	delete(images, s.ref("shop/web:1.0.0"))
	s.open()
	s.push(images)
	b.start()
	r := b.await("a held stack", func(r status.Report) bool { return r.Stack == "held" })
	if !strings.Contains(condition(r, "images-refused").Text, s.ref("shop/web:1.0.0")+" cannot be had: "+s.addr+" answered 404") {
		t.Errorf("%+v", r.Conditions)
	}
	if c := b.containers(); len(c) != 0 {
		t.Errorf("%d containers were made", len(c))
	}
}
