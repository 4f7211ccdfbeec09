// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/holdfast/holdfast/builder/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.Child()
	testscript.Main(m, map[string]func(){"holdfast-release": func() { os.Exit(run(os.Args[1:])) }})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOLDFAST_CACHE", e.WorkDir+"/cache")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// status CODE COMMAND... runs a command that must end with CODE.
			"status": status,
			// mkrelease DIR VERSION [SYSTEM] makes a small release.
			"mkrelease": makeRelease,
			// flip FILE BYTE flips a bit of a file's byte.
			"flip": flipBit,
		},
	})
}
