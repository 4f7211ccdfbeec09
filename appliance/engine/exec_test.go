// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// commands answers the three calls of an exec: create, start (which takes the
// connection over) and inspect.
type commands struct {
	created map[string]any
	// output is one frame of standard output.
	output string
	// answers of create and inspect; ask is called at each inspect.
	create  int
	inspect string
	ask     func()
}

func (c *commands) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", MinAPI)
	w.Header().Set("Content-Type", "application/json")
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/containers/web/exec"):
		json.NewDecoder(r.Body).Decode(&c.created)
		w.WriteHeader(c.create)
		io.WriteString(w, `{"Id":"e1","message":"container is not running"}`)
	case strings.HasSuffix(path, "/exec/e1/start"):
		io.Copy(io.Discard, r.Body)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		head := make([]byte, 8)
		head[0] = 1
		binary.BigEndian.PutUint32(head[4:], uint32(len(c.output)))
		conn.Write(append(head, c.output...))
	case strings.HasSuffix(path, "/exec/e1/json"):
		io.WriteString(w, c.inspect)
		c.ask()
	}
}

func TestExecCommand(t *testing.T) {
	for _, c := range []struct {
		name   string
		engine commands
		want   ExecResult
		err    error
	}{
		{"well", commands{create: 201, output: "hello\n", inspect: `{"ID":"e1","ExitCode":0}`}, ExecResult{ID: "e1", Output: "hello\n"}, nil},
		{"fails", commands{create: 201, inspect: `{"ID":"e1","ExitCode":3}`}, ExecResult{ID: "e1", ExitCode: 3}, nil},
		{"much output", commands{create: 201, output: strings.Repeat("x", 3*execOutput), inspect: `{}`}, ExecResult{ID: "e1", Output: strings.Repeat("x", execOutput)}, nil},
		{"closed its output", commands{create: 201, inspect: `{"Running":true}`}, ExecResult{ID: "e1"}, ErrExecTimeout},
		{"container ended", commands{create: 409}, ExecResult{}, ErrNotFound},
		{"container is gone", commands{create: 404}, ExecResult{}, ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "docker.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: &c.engine}
			done := make(chan struct{})
			go func() { srv.Serve(l); close(done) }()
			defer func() { srv.Close(); <-done }()
			d, err := Open("unix://" + socket)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c.engine.ask = func() {
				if strings.Contains(c.engine.inspect, "Running") {
					cancel() // a caller's deadline, without a clock
				}
			}
			got, err := d.ExecCommand(ctx, "web", Command{Argv: []string{"a", "b"}, Env: []string{"K=v"}, User: "5", WorkingDir: "/srv"})
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			sent, err := json.Marshal(map[string]any{"Cmd": c.engine.created["Cmd"], "Env": c.engine.created["Env"], "User": c.engine.created["User"], "WorkingDir": c.engine.created["WorkingDir"]})
			if err != nil || string(sent) != `{"Cmd":["a","b"],"Env":["K=v"],"User":"5","WorkingDir":"/srv"}` {
				t.Errorf("asked for %s %v", sent, err)
			}
		})
	}
}
