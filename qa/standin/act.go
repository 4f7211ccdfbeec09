// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// command is one thing a stand-in can be told to do.
type command struct {
	verb, arg string
	after     time.Duration
}

// verbs and what their argument is; "" takes none.
var verbs = map[string]string{
	"exit":        "a code from 0 to 255",
	"memory":      "a size",
	"cpu":         "a number of cores",
	"disk":        "a path",
	"slow-stop":   "a time",
	"hang-health": "", "fail-health": "", "oom": "", "forks": "", "fds": "", "logs": "", "ignore-stop": "", "heal": "",
}

// parseCommands reads commands separated by ";", each VERB [ARG] [after TIME].
func parseCommands(s string) (out []command, err error) {
	for _, text := range strings.Split(s, ";") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		c, err := parseCommand(strings.Fields(text))
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func parseCommand(words []string) (c command, err error) {
	all := strings.Join(words, " ")
	if n := len(words); n >= 2 && words[n-2] == "after" {
		if c.after, err = time.ParseDuration(words[n-1]); err != nil || c.after < 0 {
			return c, fmt.Errorf("%q: %q is no time", all, words[n-1])
		}
		words = words[:n-2]
	}
	if len(words) == 0 {
		return c, fmt.Errorf("%q says nothing to do", all)
	}
	want, ok := verbs[words[0]]
	c.verb = words[0]
	switch {
	case !ok:
		return c, fmt.Errorf("%q is no command", c.verb)
	case want == "" && len(words) != 1, want != "" && len(words) != 2:
		return c, fmt.Errorf("%q: %s takes %s", all, c.verb, orNothing(want))
	case want != "":
		c.arg = words[1]
	}
	switch c.verb {
	case "exit":
		_, err = strconv.ParseUint(c.arg, 10, 8)
	case "memory":
		_, err = parseSize(c.arg)
	case "cpu":
		_, err = strconv.ParseUint(c.arg, 10, 10)
	case "slow-stop":
		_, err = time.ParseDuration(c.arg)
	}
	if err != nil {
		return c, fmt.Errorf("%q: %s takes %s: %w", all, c.verb, want, err)
	}
	return c, nil
}

func orNothing(s string) string {
	if s == "" {
		return "no argument"
	}
	return s
}

// actor is what a stand-in does beside its role.
type actor struct {
	exit chan int

	mu       sync.Mutex
	started  bool
	hang     chan struct{} // closed when health answers again
	sick     bool
	ignore   bool
	slow     time.Duration
	held     []byte
	cancel   context.CancelFunc // ends the misbehaviours that go on
	ctx      context.Context
	children []*os.Process
}

func newActor() *actor {
	a := &actor{exit: make(chan int, 1)}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

func (a *actor) ready() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.started = true
}

// health is what every path, and /liveness.sh, answers.
func (a *actor) health(ctx context.Context) error {
	a.mu.Lock()
	hang, sick, started := a.hang, a.sick, a.started
	a.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch {
	case sick:
		return errors.New("told to be unhealthy")
	case !started:
		return errors.New("starting")
	}
	return nil
}

// stop is what SIGTERM does. A stand-in that ignores it waits to be killed.
func (a *actor) stop() int {
	a.mu.Lock()
	ignore, slow := a.ignore, a.slow
	a.mu.Unlock()
	fmt.Println("standin: asked to stop")
	if ignore {
		return <-a.exit
	}
	if slow > 0 {
		t := time.NewTimer(slow)
		defer t.Stop()
		select {
		case <-t.C:
		case code := <-a.exit:
			return code
		}
	}
	return 0
}

// start does a command when its time has come.
func (a *actor) start(c command) {
	if c.after == 0 {
		a.act(c)
		return
	}
	time.AfterFunc(c.after, func() { a.act(c) })
}

// act does a command:
//
//	exit N          ends with this code
//	memory SIZE     holds as much memory, every page touched, in place of before
//	cpu N           burns as many cores
//	oom             takes memory until the kernel ends it
//	forks           starts processes until it may not, and goes on trying
//	fds             opens files until it may not
//	logs            writes lines as fast as they are taken
//	disk PATH       writes to PATH until there is no room, and goes on trying
//	hang-health     health is never answered
//	fail-health     health is answered with 503
//	slow-stop TIME  takes so long to end when asked to
//	ignore-stop     does not end when asked to
//	heal            ends all of these, as far as they can be
func (a *actor) act(c command) {
	fmt.Println("standin: told to", c.verb, c.arg)
	a.mu.Lock()
	ctx := a.ctx
	switch c.verb {
	case "hang-health":
		if a.hang == nil {
			a.hang = make(chan struct{})
		}
	case "fail-health":
		a.sick = true
	case "ignore-stop":
		a.ignore = true
	case "slow-stop":
		a.slow, _ = time.ParseDuration(c.arg)
	case "heal":
		a.heal()
	}
	a.mu.Unlock()
	switch c.verb {
	case "exit":
		n, _ := strconv.Atoi(c.arg)
		select {
		case a.exit <- n:
		default:
		}
	case "memory":
		n, _ := parseSize(c.arg)
		if err := a.memory(n); err != nil {
			fmt.Fprintln(os.Stderr, "standin:", err)
		}
	case "cpu":
		n, _ := strconv.Atoi(c.arg)
		for range n {
			go burn(ctx)
		}
	case "oom":
		go takeAll(ctx)
	case "forks":
		go a.fork(ctx)
	case "fds":
		go open(ctx)
	case "logs":
		go flood(ctx, os.Stdout)
	case "disk":
		go fill(ctx, c.arg)
	}
}

// heal takes back what can be taken back; a.mu is held.
func (a *actor) heal() {
	a.cancel()
	a.ctx, a.cancel = context.WithCancel(context.Background())
	if a.hang != nil {
		close(a.hang)
		a.hang = nil
	}
	a.sick, a.ignore, a.slow = false, false, 0
	for _, p := range a.children {
		p.Kill()
		p.Wait()
	}
	a.children = nil
}

// memory holds n bytes, every page of them touched.
func (a *actor) memory(n int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held != nil {
		if err := syscall.Munmap(a.held); err != nil {
			return err
		}
		a.held = nil
	}
	if n == 0 {
		return nil
	}
	b, err := syscall.Mmap(-1, 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("hold %d bytes: %w", n, err)
	}
	touch(b)
	a.held = b
	return nil
}

// touch writes to each page: only then it is the container's.
func touch(b []byte) {
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
}

func burn(ctx context.Context) {
	runtime.LockOSThread()
	for n := 0; ; n++ {
		if n%(1<<20) == 0 && ctx.Err() != nil {
			return
		}
	}
}

func takeAll(ctx context.Context) {
	var all [][]byte
	for ctx.Err() == nil {
		b := make([]byte, 8<<20)
		touch(b)
		all = append(all, b)
	}
	runtime.KeepAlive(all)
}

// fork starts processes that do nothing. They end with this one, which is
// the init of the container's process namespace.
func (a *actor) fork(ctx context.Context) {
	spareThreads()
	try(ctx, func() error {
		p, err := os.StartProcess("/proc/self/exe", []string{"standin", "hold"}, &os.ProcAttr{})
		if err == nil {
			a.mu.Lock()
			a.children = append(a.children, p)
			a.mu.Unlock()
		}
		return err
	})
}

// spareThreads gives the runtime threads that it will want once none is to be
// had any more: it ends the process where the kernel refuses it one.
func spareThreads() {
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		return
	}
	var up, done sync.WaitGroup
	for range 8 {
		up.Add(1)
		done.Go(func() {
			up.Done()
			syscall.Read(pipe[0], make([]byte, 1)) // blocks its thread, until there is no writer
		})
	}
	up.Wait()
	syscall.Close(pipe[1])
	done.Wait()
	syscall.Close(pipe[0])
}

// hold does nothing until it is ended.
func hold() int {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
	return 0
}

func open(ctx context.Context) {
	var all []*os.File
	try(ctx, func() error {
		f, err := os.Open("/proc/self/exe")
		if err == nil {
			all = append(all, f)
		}
		return err
	})
	for _, f := range all {
		f.Close()
	}
}

func fill(ctx context.Context, path string) {
	f, err := os.Create(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		return
	}
	defer f.Close()
	b := slices.Repeat([]byte("standin "), 1<<17)
	try(ctx, func() error {
		_, err := f.Write(b)
		return err
	})
	os.Remove(path)
}

// try does a thing again and again. Refused, it says so once, and waits a
// little before each further try.
func try(ctx context.Context, f func() error) {
	said := false
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; {
		err := f()
		if err == nil {
			n++
			continue
		}
		if !said {
			fmt.Fprintf(os.Stderr, "standin: refused after %d times: %v\n", n, err)
			said = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func flood(ctx context.Context, w io.Writer) {
	line := []byte(strings.Repeat("standin floods the log ", 8) + "\n")
	for ctx.Err() == nil {
		if _, err := w.Write(line); err != nil {
			return
		}
	}
}
