// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestConsoleWaits(t *testing.T) {
	r, w := io.Pipe()
	var log bytes.Buffer
	c := newConsole()
	read := make(chan struct{})
	go func() { c.read(r, &log); close(read) }()
	go func() {
		io.WriteString(w, "\x1b[0;1;31mfirst\x1b[0m li")
		io.WriteString(w, "ne\r\nstack hea")
		io.WriteString(w, "lthy after 41 s\r\n")
	}()
	m, err := c.Wait(context.Background(), `^stack healthy after (\d+) s$`)
	if err != nil || m[1] != "41" {
		t.Fatalf("%v, %v", m, err)
	}
	if got := c.Text(); !strings.HasPrefix(got, "first line\n") {
		t.Errorf("text %q", got)
	}
	gone, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("out of patience"))
	if _, err := c.WaitAfter(gone, c.Mark(), `healthy`); err == nil || !strings.Contains(err.Error(), "/healthy/") || !strings.Contains(err.Error(), "out of patience") {
		t.Errorf("a wait that ended says %v", err)
	}
	w.Close()
	<-read
	if _, err := c.Wait(context.Background(), `never said`); err == nil || !strings.Contains(err.Error(), "first line") {
		t.Errorf("a wait on a machine that ended says %v", err)
	}
	if !strings.Contains(log.String(), "\x1b[0;1;31m") {
		t.Error("the log must keep each byte")
	}
}
