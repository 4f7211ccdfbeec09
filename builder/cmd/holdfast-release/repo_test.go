// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// execute runs a verb in this process.
func execute(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, say bytes.Buffer
	cmd := root(args)
	cmd.SetOut(&out)
	cmd.SetErr(&say)
	err = cmd.ExecuteContext(t.Context())
	return out.String() + say.String(), err
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := execute(t, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// A release goes to a registry and comes back, and the list changes at once.
func TestRegistry(t *testing.T) {
	var order []string
	h := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/manifests/") {
			order = append(order, filepath.Base(q.URL.Path))
		}
		h.ServeHTTP(w, q)
	}))
	defer s.Close()
	to := "oci+http://" + strings.TrimPrefix(s.URL, "http://") + "/demo"
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	must(t, "keys", "init", keys)
	for _, v := range []string{"1.0.0", "1.1.0+build"} {
		rel := filepath.Join(dir, v)
		if err := writeRelease(rel, v, v); err != nil {
			t.Fatal(err)
		}
		must(t, "publish", "--release", rel, "--keys", keys, "--to", to)
		if order[len(order)-1] != "tuf" || order[len(order)-2] != strings.ReplaceAll(v, "+", "_") {
			t.Errorf("the order of manifests is %v: the list must come last", order)
		}
	}
	out := must(t, "verify", to, "--root", filepath.Join(keys, "root.json"))
	for _, v := range []string{"demo-1.0.0", "demo-1.1.0+build", "every byte is as signed"} {
		if !strings.Contains(out, v) {
			t.Errorf("%q does not say %q", out, v)
		}
	}
	if out := must(t, "publish", "--keys", keys, "--to", to); !strings.Contains(out, "0 B were new") {
		t.Error(out)
	}
	if _, err := execute(t, "publish", "--keys", keys, "--to", "oci://not a repository"); err == nil {
		t.Error("a wrong repository is taken")
	}
}

// A web server's folder is a folder.
func TestWebServer(t *testing.T) {
	dir := t.TempDir()
	keys, pub := filepath.Join(dir, "keys"), filepath.Join(dir, "pub")
	must(t, "keys", "init", keys)
	if err := writeRelease(filepath.Join(dir, "rel"), "1.0.0", "1"); err != nil {
		t.Fatal(err)
	}
	must(t, "publish", "--release", filepath.Join(dir, "rel"), "--keys", keys, "--to", pub)
	s := httptest.NewServer(http.FileServer(http.Dir(pub)))
	defer s.Close()
	if out := must(t, "verify", s.URL, "--root", filepath.Join(keys, "root.json")); !strings.Contains(out, "demo-1.0.0") {
		t.Error(out)
	}
}

// Servers that send more than there can be are refused, not waited for.
func TestLyingServers(t *testing.T) {
	dir := t.TempDir()
	keys, pub := filepath.Join(dir, "keys"), filepath.Join(dir, "pub")
	must(t, "keys", "init", keys)
	must(t, "publish", "--keys", keys, "--to", pub)
	for _, name := range []string{"timestamp.json", "2.root.json", "1.snapshot.json"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if filepath.Base(q.URL.Path) != name && !strings.HasSuffix(q.URL.Path, ".snapshot.json") {
				http.FileServer(http.Dir(pub)).ServeHTTP(w, q)
				return
			}
			for { // until the client has had enough
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}))
		_, err := execute(t, "verify", s.URL, "--root", filepath.Join(keys, "root.json"))
		if err == nil || !strings.Contains(err.Error(), "bytes, which no such file has") {
			t.Errorf("endless %s: %v", name, err)
		}
		s.Close()
	}
}
