// SPDX-License-Identifier: Apache-2.0

// Command standin takes the place of a service in tests: a static program that
// is the whole of an image FROM scratch. It opens the ports and answers the
// paths its role names, holds the memory and burns the processors it is told
// to, is a one-shot where its role says so, passes for the programs that
// health checks run (sh, wget, curl, redis-cli, /liveness.sh), and misbehaves
// on command. It refuses a role or a command it cannot read.
//
// The role and what it shall do come from the environment, so the same
// program serves every image:
//
//	STANDIN_PORTS    what is served: "http:3080:/healthz|/ready,tcp:5432"
//	STANDIN_ONCE     "1" for a one-shot, which ends when its start-up is over
//	STANDIN_STARTUP  time before the ports open or a one-shot ends: "2s"
//	STANDIN_MEMORY   memory to hold from the start: "128MiB"
//	STANDIN_DO       what to do, separated by ";": "exit 3 after 5s; slow-stop 20s"
//
// `standin do COMMAND` in a running container adds a command; doc comment of
// act lists them. `standin serve|once|check` are the same without a role.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// Exit codes beyond those a command asks for.
const (
	exitUsage = 2
	exitPort  = 7
	exitFile  = 8
	exitNeed  = 9
)

func main() {
	if code := run(filepath.Base(os.Args[0]), os.Args[1:]); code != 0 {
		os.Exit(code)
	}
}

// run is the program under one of its names.
func run(name string, args []string) int {
	switch name {
	case "sh":
		return shell(args)
	case "wget", "curl":
		return fetch(args)
	case "redis-cli":
		return ping()
	case "liveness.sh":
		return tell("health")
	}
	if len(args) > 0 {
		switch args[0] {
		case "do":
			return do(args[1:])
		case "hold":
			return hold()
		case "serve", "once", "check":
			return plain(args[0], args[1:])
		}
	}
	// Any other argument is the service's own, which a stand-in has no use for.
	r, err := roleOf(os.LookupEnv)
	if err != nil {
		return fail(exitUsage, err)
	}
	return r.play()
}

func fail(code int, err error) int {
	fmt.Fprintln(os.Stderr, "standin:", err)
	return code
}
