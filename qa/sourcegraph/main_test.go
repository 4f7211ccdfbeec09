// SPDX-License-Identifier: Apache-2.0

//go:build engine

package sourcegraph

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/qa/dockerd"
	"github.com/holdfast/holdfast/qa/standin/image"
)

// Shared by the tests: one engine, the programs.
var (
	base    string // the folder the engine and the host share
	program string // holdfast
	standin string
	running *dockerd.Daemon
)

func TestMain(m *testing.M) {
	dockerd.Init()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sourcegraph tests:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	tools := os.Getenv("HOLDFAST_TOOLS")
	if tools == "" {
		tools = "/"
	}
	// Not TMPDIR: overlay file systems refuse some of what may be mounted there.
	if base, err = os.MkdirTemp("/var/tmp", "holdfast-sourcegraph-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(base)
	if err := build(); err != nil {
		return 1, err
	}
	if running, err = dockerd.Start(tools, base); err != nil {
		return 1, err
	}
	defer running.Stop()
	code = m.Run()
	if keep := os.Getenv("HOLDFAST_ENGINE_LOG"); keep != "" {
		return code, os.Rename(running.Log(), keep)
	}
	return code, nil
}

// build compiles the programs from the module's root; the tests of the stack
// itself stay in the package's folder.
func build() error {
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	defer os.Chdir(here)
	root, err := dockerd.ModuleRoot()
	if err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	program, standin = filepath.Join(base, "holdfast"), filepath.Join(base, "standin")
	if err := image.Build(standin); err != nil {
		return err
	}
	return dockerd.Build("./appliance/cmd/holdfast", program)
}
