// SPDX-License-Identifier: Apache-2.0

//go:build engine

package gce

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// fakeGCS starts a Cloud Storage that we did not write, with one bucket.
func fakeGCS(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("HOLDFAST_PEERS")
	if dir == "" {
		t.Fatal("HOLDFAST_PEERS is not set: run `make test-engine`, which builds fake-gcs-server")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	l.Close()
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "fake-gcs-server"), "-scheme", "http", "-host", "127.0.0.1", "-port", port,
		"-backend", "memory", "-public-host", address)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	log := bufio.NewScanner(out)
	for log.Scan() && !strings.Contains(log.Text(), "server started") {
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	res, err := http.Post("http://"+address+"/storage/v1/b?project=my-project", "application/json", strings.NewReader(`{"name":"my-bucket"}`))
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("make a bucket: %v, %v", res, err)
	}
	res.Body.Close()
	return "http://" + address
}

// objects of the bucket, as its list shows them.
func objects(t *testing.T, server string) string {
	t.Helper()
	res, err := http.Get(server + "/storage/v1/b/my-bucket/o")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// half gives the first half of a body and breaks then.
type half struct {
	io.Reader
	io.Closer
}

var errCut = errors.New("cut")

type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, errCut }

// breaking passes requests on to server and breaks the connection in the
// middle of every third chunk.
func breaking(t *testing.T, server string) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	to, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	var chunks, cuts atomic.Int64
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // so that the upload's address leads back here
			if r.In.URL.Query().Has("upload_id") && chunks.Add(1)%3 == 2 {
				cuts.Add(1)
				r.Out.Body = half{io.MultiReader(io.LimitReader(r.In.Body, r.In.ContentLength/2), cut{}), r.In.Body}
			}
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return s, &cuts
}

// The archive arrives whole over connections that break, is there when the
// image is asked for, and is gone at the end.
func TestUploadToForeignStorage(t *testing.T) {
	server := fakeGCS(t)
	proxy, cuts := breaking(t, server)
	c := newCloud(t)
	dir := output(t, 3<<20)
	u := c.upload()
	u.StorageEndpoint = proxy.URL
	u.Object = "folder/archive-1.0_x.tar.gz"
	seen := false
	c.exists = func(object string) bool {
		res, err := http.Get(server + "/storage/v1/b/my-bucket/o/" + url.PathEscape(object) + "?alt=media")
		if err != nil {
			t.Error(err)
			return false
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		want, _ := os.ReadFile(filepath.Join(dir, "demo-1.0.0-gce.tar.gz"))
		seen = err == nil && len(want) > 3<<20 && bytes.Equal(got, want)
		return seen
	}
	r, err := Run(t.Context(), Config{Dir: dir, Upload: u}, &lines{})
	if err != nil {
		t.Fatal(err)
	}
	if !seen || cuts.Load() < 3 {
		t.Errorf("the archive was there: %v; %d broken connections", seen, cuts.Load())
	}
	if list := objects(t, server); strings.Contains(list, "tar.gz") || r.Image.Object != "" {
		t.Errorf("the archive is still there: %s", list)
	}
}

func TestForeignStorageRefuses(t *testing.T) {
	server := fakeGCS(t)
	for name, k := range map[string]struct {
		spoil func(c *cloud, u *Upload)
		want  string
	}{
		"no bucket":    {func(_ *cloud, u *Upload) { u.Bucket = "other-bucket" }, "there is no bucket other-bucket"},
		"image fails":  {func(c *cloud, _ *Upload) { c.faults["compute.images.insert"] = []fault{{status: 403, message: "no"}} }, "nothing is left in the cloud"},
		"object taken": {func(_ *cloud, u *Upload) { u.Object = "theirs" }, "gs://my-bucket/theirs exists and is not this archive"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			c.exists = func(string) bool { return true }
			u := c.upload()
			u.StorageEndpoint = server + "/storage/v1/"
			k.spoil(c, u)
			if u.Object != "" {
				res, err := http.Post(fmt.Sprintf("%s/upload/storage/v1/b/my-bucket/o?uploadType=media&name=%s", server, u.Object), "text/plain", strings.NewReader("x"))
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
			}
			_, err := Run(t.Context(), Config{Dir: output(t, 1<<20), Upload: u}, &lines{})
			check(t, err, k.want)
			list := objects(t, server)
			if strings.Contains(list, "tar.gz") || u.Object != "" && !strings.Contains(list, "theirs") {
				t.Errorf("left in the bucket: %s", list)
			}
		})
	}
}
