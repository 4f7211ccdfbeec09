// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
)

// fakeQEMU answers like QEMU 10: greeting, one reply a command, an event in
// between.
func fakeQEMU(conn net.Conn) {
	defer conn.Close()
	fmt.Fprintln(conn, `{"QMP": {"version": {}, "capabilities": []}}`)
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		var c struct {
			Execute   string
			Arguments map[string]string
		}
		if json.Unmarshal(lines.Bytes(), &c) != nil {
			return
		}
		switch c.Execute {
		case "qmp_capabilities":
			fmt.Fprintln(conn, `{"return": {}}`)
		case "system_reset":
			fmt.Fprintln(conn, `{"timestamp": {}, "event": "RESET", "data": {"guest": false}}`)
			fmt.Fprintln(conn, `{"return": {}}`)
		case "human-monitor-command":
			fmt.Fprintf(conn, "{\"return\": %q}\n", "you said "+c.Arguments["command-line"])
		case "quit":
			return
		default:
			fmt.Fprintln(conn, `{"error": {"class": "CommandNotFound", "desc": "what?"}}`)
		}
	}
}

func TestQMP(t *testing.T) {
	here, there := net.Pipe()
	go fakeQEMU(there)
	ctx := context.Background()
	q, err := openQMP(ctx, here)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := q.Monitor(ctx, "info usernet"); err != nil || out != "you said info usernet" {
		t.Errorf("%q, %v", out, err)
	}
	if err := q.Command(ctx, "dance", nil, nil); err == nil || !strings.Contains(err.Error(), "CommandNotFound: what?") {
		t.Errorf("an unknown command: %v", err)
	}
	if err := q.Command(ctx, "system_reset", nil, nil); err != nil {
		t.Error(err)
	}
	if e, err := q.Wait(ctx, 0, "RESET"); err != nil || !strings.Contains(string(e.Data), "false") {
		t.Errorf("%v, %v", e, err)
	}
	if err := q.Command(ctx, "quit", nil, nil); err == nil {
		t.Error("quit was answered")
	}
	if _, err := q.Wait(ctx, 1, "RESET"); err == nil || !strings.Contains(err.Error(), "RESET") {
		t.Errorf("a wait on a dead QEMU: %v", err)
	}
}

func TestShellProtocol(t *testing.T) {
	here, there := net.Pipe()
	go func() {
		fmt.Fprintln(there, "hello boot-1")
		lines := bufio.NewScanner(there)
		for lines.Scan() {
			id, _, _ := strings.Cut(lines.Text(), " ")
			fmt.Fprintf(there, "done %s 3 %s\n", id, "b3V0cHV0Cg==")
			fmt.Fprintln(there, "hello boot-1")
			fmt.Fprintln(there, "hello boot-2")
		}
	}()
	s := newShell(here)
	ctx := context.Background()
	if id, err := s.Ready(ctx, 1); err != nil || id != "boot-1" {
		t.Fatalf("%q, %v", id, err)
	}
	if out, status, err := s.Run(ctx, "false"); err != nil || out != "output\n" || status != 3 {
		t.Errorf("%q %d %v", out, status, err)
	}
	if id, err := s.Ready(ctx, 2); err != nil || id != "boot-2" {
		t.Errorf("second boot: %q, %v", id, err)
	}
}

func TestAccel(t *testing.T) {
	for cpuinfo, want := range map[string]string{
		"flags\t\t: fpu vmx sse\n":            "kvm",
		"flags\t\t: fpu svm\n":                "kvm",
		"flags\t\t: fpu sse\nvmx flags : x\n": "tcg,thread=multi",
		"":                                    "tcg,thread=multi",
	} {
		if got := accel(cpuinfo); got != want {
			t.Errorf("%q: %s, want %s", cpuinfo, got, want)
		}
	}
}
