// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// port is what is served on one port: HTTP where there are paths, else a
// connection that is kept open and, for Redis' sake, answers PING.
type port struct {
	number int
	paths  []string
}

// role is what a stand-in is to be.
type role struct {
	ports   []port
	once    bool
	startup time.Duration
	memory  int64
	do      []command
}

// roleOf reads a role from the environment.
func roleOf(env func(string) (string, bool)) (r role, err error) {
	get := func(k string) string { v, _ := env("STANDIN_" + k); return v }
	if r.ports, err = parsePorts(get("PORTS")); err != nil {
		return r, fmt.Errorf("STANDIN_PORTS: %w", err)
	}
	switch v := get("ONCE"); v {
	case "", "0":
	case "1":
		r.once = true
	default:
		return r, fmt.Errorf("STANDIN_ONCE: %q is neither 0 nor 1", v)
	}
	if v := get("STARTUP"); v != "" {
		if r.startup, err = time.ParseDuration(v); err != nil {
			return r, fmt.Errorf("STANDIN_STARTUP: %w", err)
		}
	}
	if v := get("MEMORY"); v != "" {
		if r.memory, err = parseSize(v); err != nil {
			return r, fmt.Errorf("STANDIN_MEMORY: %w", err)
		}
	}
	if r.do, err = parseCommands(get("DO")); err != nil {
		return r, fmt.Errorf("STANDIN_DO: %w", err)
	}
	return r, nil
}

func parsePorts(s string) (out []port, err error) {
	for _, item := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' }) {
		kind, rest, _ := strings.Cut(item, ":")
		number, paths, _ := strings.Cut(rest, ":")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > 65535 || kind != "http" && kind != "tcp" || kind == "tcp" && paths != "" {
			return nil, fmt.Errorf("%q is neither tcp:PORT nor http:PORT:/PATH|/PATH", item)
		}
		p := port{number: n}
		if kind == "http" {
			p.paths = strings.Split(paths, "|")
			for _, path := range p.paths {
				if !strings.HasPrefix(path, "/") {
					return nil, fmt.Errorf("%q: the path %q does not start with /", item, path)
				}
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// parseSize reads bytes, KiB, MiB or GiB.
func parseSize(s string) (int64, error) {
	shift := 0
	number := s
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if v, ok := strings.CutSuffix(s, unit); ok {
			number, shift = v, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > 1<<40>>shift {
		return 0, fmt.Errorf("%q is no size up to 1024GiB, such as 128MiB", s)
	}
	return n << shift, nil
}

// play is the life of a stand-in: it returns the exit code.
func (r role) play() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// Before anything is served or asked: health is asked for at once.
	a := newActor()
	if err := a.listen(); err != nil {
		return fail(exitPort, err)
	}
	if err := a.memory(r.memory); err != nil {
		return fail(exitUsage, err)
	}
	for _, c := range r.do {
		a.start(c)
	}
	up := time.NewTimer(r.startup)
	defer up.Stop()
	select {
	case <-up.C:
	case code := <-a.exit:
		return code
	case <-ctx.Done():
		return a.stop()
	}
	if r.once {
		fmt.Println("standin: done")
		return 0
	}
	failed := make(chan error, len(r.ports))
	for _, p := range r.ports {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(p.number))
		if err != nil {
			return fail(exitPort, err)
		}
		go func() { failed <- a.serve(l, p) }()
	}
	a.ready()
	fmt.Println("standin: serving")
	select {
	case err := <-failed:
		return fail(exitPort, err)
	case code := <-a.exit:
		return code
	case <-ctx.Done():
		return a.stop()
	}
}

// serve answers on one port until the process ends.
func (a *actor) serve(l net.Listener, p port) error {
	if p.paths == nil {
		return serveTCP(l)
	}
	mux := http.NewServeMux()
	for _, path := range p.paths {
		// "{$}": a path is itself and nothing below it.
		pattern := path
		if strings.HasSuffix(path, "/") {
			pattern += "{$}"
		}
		mux.HandleFunc(pattern, func(w http.ResponseWriter, q *http.Request) {
			if err := a.health(q.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "# a stand-in\nstandin_up 1")
		})
	}
	return (&http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}).Serve(l)
}

func serveTCP(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			b := make([]byte, 512)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				if strings.Contains(string(b[:n]), "PING") {
					if _, err := c.Write([]byte("+PONG\r\n")); err != nil {
						return
					}
				}
			}
		}()
	}
}

// need is an error unless a file has a content.
func need(path string) error {
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 0 {
		err = errors.New(path + " is empty")
	}
	return err
}
