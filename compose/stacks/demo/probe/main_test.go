// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestProbe(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) {})
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no database", http.StatusServiceUnavailable)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	deadline := time.Now().Add(10 * time.Second)
	if s, err := probe(srv.URL+"/ok", deadline); err != nil || !strings.Contains(s, "200") {
		t.Errorf("%q %v", s, err)
	}
	if _, err := probe(srv.URL+"/bad", deadline); err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "no database") {
		t.Errorf("got %v", err)
	}
	for _, a := range []string{"https://127.0.0.1/", "127.0.0.1", "http://", "http://127.0.0.1:1/"} {
		if _, err := probe(a, deadline); err == nil {
			t.Errorf("%s: no error", a)
		}
	}
}

func TestSilentServer(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = probe("http://"+l.Addr().String()+"/", time.Now().Add(50*time.Millisecond))
	if err == nil {
		t.Error("no error from a server that never answers")
	}
}
