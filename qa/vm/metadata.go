// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// relayWord is the first argument with which a test binary only joins its
// standard input and output with a socket: QEMU starts one so for each
// connection of the guest to the metadata service.
const relayWord = "holdfast-relay"

// Relay does that work and says whether it was asked to; TestMain calls it
// first.
func Relay(args []string) bool {
	if len(args) != 3 || args[1] != relayWord {
		return false
	}
	conn, err := net.Dial("unix", args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return true
	}
	go func() {
		io.Copy(conn, os.Stdin)
		conn.(*net.UnixConn).CloseWrite()
	}()
	io.Copy(os.Stdout, conn)
	return true
}

// Metadata is a cloud's metadata service for one machine.
type Metadata struct {
	// Command goes into Options.Metadata.
	Command string

	mu     sync.Mutex
	values map[string]string
	v1Only bool
	asked  []string
	server *http.Server
}

// NewMetadata serves values by path ("/latest/user-data"); dir is for its
// socket. EC2's paths begin with /latest, Google's with /computeMetadata.
func NewMetadata(dir string, values map[string]string) (*Metadata, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "metadata.socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	m := &Metadata{Command: self + " " + relayWord + " " + socket, values: values}
	m.server = &http.Server{Handler: m, ReadHeaderTimeout: time.Minute}
	go func() {
		if err := m.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "metadata service:", err)
		}
	}()
	return m, nil
}

// Close ends the service.
func (m *Metadata) Close() error { return m.server.Close() }

// V1Only makes it an old EC2 service: no tokens, and data for everyone who
// asks.
func (m *Metadata) V1Only(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.v1Only = on
}

// Set changes a value.
func (m *Metadata) Set(path, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[path] = value
}

// Asked is what was asked so far, "METHOD PATH STATUS", and is forgotten.
func (m *Metadata) Asked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked := m.asked
	m.asked = nil
	return asked
}

const token = "AQAEAHoldfastTestToken=="

// ServeHTTP answers as EC2's instance metadata service version 2 and Google's
// metadata server do.
func (m *Metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	code, body := m.answer(w, r)
	m.asked = append(m.asked, fmt.Sprintf("%s %s %d", r.Method, r.URL.Path, code))
	w.WriteHeader(code)
	io.WriteString(w, body)
}

func (m *Metadata) answer(w http.ResponseWriter, r *http.Request) (int, string) {
	ec2 := strings.HasPrefix(r.URL.Path, "/latest/")
	if ec2 && r.URL.Path == "/latest/api/token" {
		switch {
		case m.v1Only:
			return http.StatusForbidden, ""
		case r.Method != http.MethodPut:
			return http.StatusMethodNotAllowed, ""
		case r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "":
			return http.StatusBadRequest, ""
		}
		w.Header().Set("X-aws-ec2-metadata-token-ttl-seconds", r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"))
		return http.StatusOK, token
	}
	if r.Method != http.MethodGet {
		return http.StatusMethodNotAllowed, ""
	}
	if ec2 && !m.v1Only && r.Header.Get("X-aws-ec2-metadata-token") != token {
		return http.StatusUnauthorized, ""
	}
	if !ec2 {
		if r.Header.Get("Metadata-Flavor") != "Google" {
			return http.StatusForbidden, ""
		}
		w.Header().Set("Metadata-Flavor", "Google")
	}
	value, ok := m.values[r.URL.Path]
	if !ok {
		return http.StatusNotFound, "not found"
	}
	return http.StatusOK, value
}
