// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"
)

// plain is a stand-in whose role is in its arguments, for stacks that have
// one image for all services: serve on port 8080, run once, check a health.
func plain(verb string, args []string) int {
	f := flag.NewFlagSet(verb, flag.ContinueOnError)
	healthyAfter := f.Duration("healthy-after", 0, "serve: when /healthz begins to say 200")
	exitAfter := f.Duration("exit-after", 0, "serve and once: end after this time")
	code := f.Uint("code", 0, "exit code of the end")
	url := f.String("url", "http://127.0.0.1:8080/healthz", "check: what must say 200")
	file := f.String("file", "", "once: append a line to this file")
	needed := f.String("need", "", "serve and once: a file that must not be empty")
	if err := f.Parse(args); err != nil {
		return exitUsage
	}
	if *code > 255 {
		return fail(exitUsage, errors.New("--code takes 0 to 255"))
	}
	if verb == "check" {
		return fetch([]string{*url})
	}
	if *needed != "" {
		if err := need(*needed); err != nil {
			return fail(exitNeed, err)
		}
	}
	r, err := roleOf(os.LookupEnv)
	if err != nil {
		return fail(exitUsage, err)
	}
	r.once = verb == "once"
	if r.once && *file != "" {
		if err := note(*file); err != nil {
			return fail(exitFile, err)
		}
	}
	if verb == "serve" {
		r.ports = []port{{number: 8080, paths: []string{"/healthz"}}}
		if *healthyAfter > 0 {
			r.do = append(r.do, command{verb: "fail-health"}, command{verb: "heal", after: *healthyAfter})
		}
	}
	switch end := strconv.Itoa(int(*code)); {
	case *exitAfter > 0:
		r.once = false
		if verb == "once" {
			r.ports = nil
		}
		r.do = append(r.do, command{verb: "exit", arg: end, after: *exitAfter})
	case r.once && *code != 0:
		r.startup = time.Duration(1<<63 - 1) // the command ends it
		r.do = append(r.do, command{verb: "exit", arg: end})
	}
	return r.play()
}

func note(path string) error {
	o, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(o, "ran")
	return errors.Join(err, o.Close())
}
