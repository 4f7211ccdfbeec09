// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/qa/dockerd"
)

// Shared by all tests: one engine, one image under one reference, one binary.
var (
	host    string // of the engine
	base    string // the folder the engine and the host share
	tools   string // the tree with the engine's programs
	program string // the holdfast binary
	image   v1.Image
	digest  string

	// running is the tests' own engine, nil where HOLDFAST_ENGINE names one.
	running *dockerd.Daemon
	// restartEngine kills the engine with all its containers, as a power cut
	// would, and starts it again on the same data.
	restartEngine func() error
)

// ref is the reference of the stand-in's image in the tests' stacks.
const ref = "holdfast.test/standin:1.0.0"

func TestMain(m *testing.M) {
	dockerd.Init()
	flag.Parse()
	if os.Getenv("HOLDFAST_ENGINE") != "" {
		patience = 5 * time.Minute
	} else if err := flag.Set("test.parallel", "6"); err != nil {
		// Most of a test is waiting for the engine, whatever the processors.
		panic(err)
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "engine tests:", err)
		code = 1
	}
	os.Exit(code)
}

// run prepares what all tests share. HOLDFAST_PROGRAM and HOLDFAST_STANDIN
// name binaries that were built already, and HOLDFAST_ENGINE the address of an
// engine that runs: so the same tests run on a machine without Go, on its own
// engine.
func run(m *testing.M) (code int, err error) {
	// Not TMPDIR: overlay file systems refuse some of what may be mounted there.
	if base, err = os.MkdirTemp("/var/tmp", "holdfast-engine-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(base)
	standin := os.Getenv("HOLDFAST_STANDIN")
	if program = os.Getenv("HOLDFAST_PROGRAM"); program == "" || standin == "" {
		root, err := dockerd.ModuleRoot()
		if err != nil {
			return 1, err
		}
		if err := os.Chdir(root); err != nil {
			return 1, err
		}
	}
	if program == "" {
		program = filepath.Join(base, "holdfast")
		if err := dockerd.Build("./appliance/cmd/holdfast", program); err != nil {
			return 1, err
		}
	}
	if standin == "" {
		standin = filepath.Join(base, "standin")
		if err := dockerd.Build("./qa/standin", standin); err != nil {
			return 1, err
		}
	}
	if host = os.Getenv("HOLDFAST_ENGINE"); host == "" {
		tools = os.Getenv("HOLDFAST_TOOLS")
		if tools == "" {
			tools = "/"
		}
		restartEngine = func() (err error) {
			if running != nil {
				running.Stop()
			}
			running, err = dockerd.Start(tools, base)
			return err
		}
		defer func() {
			if running != nil {
				running.Stop()
			}
		}()
		if err := restartEngine(); err != nil {
			return 1, err
		}
		host = running.Host
	}
	if image, err = dockerd.StandinImage(standin, "1.0.0"); err != nil {
		return 1, err
	}
	h, err := image.Digest()
	if err != nil {
		return 1, err
	}
	digest = h.String()
	if err := loadStandin(shared()); err != nil {
		return 1, err
	}
	code = m.Run()
	// For a person who looks into a failure.
	if keep := os.Getenv("HOLDFAST_ENGINE_LOG"); keep != "" && running != nil {
		return code, os.Rename(running.Log(), keep)
	}
	return code, nil
}

// dock is an engine and what it shares with the tests.
type dock struct {
	// d is nil where the engine is not the tests' own.
	d          *dockerd.Daemon
	host, base string
}

// shared is the engine of most tests.
func shared() dock { return dock{running, host, base} }

// newDock starts an engine for one test that will hurt it.
func newDock(t *testing.T) dock {
	t.Helper()
	if running == nil {
		t.Skip("the engine is not the tests' own to hurt")
	}
	dir, err := os.MkdirTemp(base, "own-")
	if err != nil {
		t.Fatal(err)
	}
	d, err := dockerd.Start(tools, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Stop)
	own := dock{d, d.Host, dir}
	if err := loadStandin(own); err != nil {
		t.Fatal(err)
	}
	return own
}

// loadStandin loads the image into the engine, as a release would.
func loadStandin(d dock) error {
	cli, err := engine.Open(d.host)
	if err != nil {
		return err
	}
	defer cli.Close()
	dir, err := os.MkdirTemp(d.base, "layout-")
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(dockerd.OCITar(w, dir, ref, image)) }()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := cli.LoadImage(ctx, r, 2*time.Minute); err != nil {
		return err
	}
	ok, err := cli.HasImage(ctx, "holdfast.test/standin@"+digest)
	if err == nil && !ok {
		err = fmt.Errorf("the image was loaded and NAME@DIGEST does not resolve")
	}
	return err
}
