// SPDX-License-Identifier: Apache-2.0

// Command probe asks one HTTP address and ends with 0 if the answer is 2xx: a
// health check for images that have no shell and no other client. It speaks
// plain HTTP/1.0 itself: net/http would more than double its size, and a small
// program starts sooner on a slow machine.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

func main() {
	timeout := flag.Duration("timeout", 10*time.Second, "how long the whole answer may take")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: probe [-timeout 10s] http://HOST:PORT/PATH")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	status, err := probe(flag.Arg(0), time.Now().Add(*timeout))
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	fmt.Println(status)
}

// maxAnswer bounds what is read: the status line and the start of a reason.
const maxAnswer = 4 << 10

// probe returns the status line; its error carries the start of the body, in
// which a health endpoint gives its reason.
func probe(address string, deadline time.Time) (status string, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" {
		return "", fmt.Errorf("%q is no http:// address", address)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	d := net.Dialer{Deadline: deadline}
	conn, err := d.DialContext(context.Background(), "tcp", host)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: probe\r\n\r\n", u.RequestURI(), u.Host); err != nil {
		return "", err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	line, err := r.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("no answer: %w", err)
	}
	status = strings.TrimSpace(line)
	fields := strings.Fields(status)
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "HTTP/1.") || len(fields[1]) != 3 {
		return "", fmt.Errorf("no HTTP answer: %.80q", status)
	}
	if fields[1][0] == '2' {
		return status, nil
	}
	rest, _ := io.ReadAll(r)
	_, body, _ := strings.Cut(string(rest), "\r\n\r\n")
	return "", errors.New(strings.TrimSpace(status + " " + strings.TrimSpace(body)))
}
