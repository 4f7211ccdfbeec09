// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// control is an abstract socket: it belongs to the container's network
// namespace and needs no file system that can be written to.
const control = "@holdfast-standin"

// maxCommand bounds what one connection may say.
const maxCommand = 4 << 10

// listen takes commands from `standin do` and /liveness.sh.
func (a *actor) listen() error {
	l, err := net.Listen("unix", control)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go a.answer(c)
		}
	}()
	return nil
}

func (a *actor) answer(c net.Conn) {
	defer c.Close()
	line, err := bufio.NewReader(io.LimitReader(c, maxCommand)).ReadString('\n')
	if err != nil {
		return
	}
	err = a.told(strings.TrimSpace(line))
	text := "ok"
	if err != nil {
		text = err.Error()
	}
	fmt.Fprintln(c, text)
}

func (a *actor) told(line string) error {
	if line == "health" {
		return a.health(context.Background())
	}
	commands, err := parseCommands(line)
	if err != nil {
		return err
	}
	for _, c := range commands {
		a.start(c)
	}
	return nil
}

// do is `standin do COMMAND`.
func do(words []string) int {
	line := strings.Join(words, " ")
	if _, err := parseCommands(line); err != nil || line == "" {
		return fail(exitUsage, errors.Join(errors.New("want a command, such as: do exit 3 after 5s"), err))
	}
	return tell(line)
}

// tell says one line to the container's stand-in.
func tell(line string) int {
	c, err := net.Dial("unix", control)
	if err != nil {
		return fail(1, fmt.Errorf("no stand-in serves here: %w", err))
	}
	defer c.Close()
	fmt.Fprintln(c, line)
	answer, err := bufio.NewReader(io.LimitReader(c, maxCommand)).ReadString('\n')
	if err != nil {
		return fail(1, err)
	}
	if answer != "ok\n" {
		return fail(1, errors.New(strings.TrimSpace(answer)))
	}
	return 0
}

// fetch is as much of wget and curl as health checks use: one address, whose
// answer counts and not its content.
func fetch(args []string) int {
	for _, a := range args {
		if !strings.HasPrefix(a, "http://") {
			continue
		}
		r, err := (&http.Client{Timeout: time.Minute}).Get(a)
		if err != nil {
			return fail(4, err)
		}
		defer r.Body.Close()
		if _, err := io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20)); err != nil {
			return fail(4, err)
		}
		if r.StatusCode >= 400 {
			return fail(8, errors.New(r.Status))
		}
		return 0
	}
	return fail(exitUsage, errors.New("no http:// address to fetch"))
}

// ping is redis-cli.
func ping() int {
	c, err := net.DialTimeout("tcp", "127.0.0.1:6379", time.Minute)
	if err != nil {
		return fail(1, err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprint(c, "PING\r\n")
	s, err := bufio.NewReader(io.LimitReader(c, 64)).ReadString('\n')
	if err != nil {
		return fail(1, err)
	}
	fmt.Fprint(os.Stdout, strings.TrimPrefix(s, "+"))
	return 0
}
