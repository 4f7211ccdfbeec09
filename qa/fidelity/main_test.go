// SPDX-License-Identifier: Apache-2.0

//go:build engine

package fidelity

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/qa/dockerd"
)

// Shared by all cases: one engine, one image, one docker compose.
var (
	host   string // of the engine
	base   string // the folder the engine and the host share
	root   string // of the module, "" where there is none
	digest string // of the image
	// plugin is the docker compose to be held against.
	plugin string
)

// ref is the image of every case: a program that serves, or ends.
const ref = "holdfast.test/standin:1.0.0"

func TestMain(m *testing.M) {
	dockerd.Init()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fidelity:", err)
		code = 1
	}
	os.Exit(code)
}

// run prepares what all cases share. As in qa/engine HOLDFAST_STANDIN names a
// binary that was built already and HOLDFAST_ENGINE the address of an engine
// that runs, so that the same tests run on a box.
func run(m *testing.M) (code int, err error) {
	peers, standin := os.Getenv("HOLDFAST_PEERS"), os.Getenv("HOLDFAST_STANDIN")
	if root, err = dockerd.ModuleRoot(); err != nil && (peers == "" || standin == "") {
		return 1, err
	}
	if peers == "" {
		peers = filepath.Join(root, "build/peers")
	}
	plugin = filepath.Join(peers, "docker-compose")
	if out, err := exec.Command(plugin, "version", "--short").CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "2.40.3" {
		return 1, fmt.Errorf("%s is not docker compose 2.40.3 (%v %s): run make peers", plugin, err, out)
	}
	if base, err = os.MkdirTemp("/var/tmp", "holdfast-fidelity-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(base)
	if standin == "" {
		standin = filepath.Join(base, "standin")
		if err := dockerd.Build("github.com/holdfast/holdfast/qa/standin", standin); err != nil {
			return 1, err
		}
	}
	if host = os.Getenv("HOLDFAST_ENGINE"); host == "" {
		tools := os.Getenv("HOLDFAST_TOOLS")
		if tools == "" {
			tools = "/"
		}
		d, err := dockerd.Start(tools, base)
		if err != nil {
			return 1, err
		}
		defer d.Stop()
		host = d.Host
	}
	if err := loadImage(standin); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func loadImage(standin string) error {
	image, err := dockerd.StandinImage(standin, "1.0.0")
	if err != nil {
		return err
	}
	h, err := image.Digest()
	if err != nil {
		return err
	}
	digest = h.String()
	cli, err := engine.Open(host)
	if err != nil {
		return err
	}
	defer cli.Close()
	dir, err := os.MkdirTemp(base, "layout-")
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(dockerd.OCITar(w, dir, ref, image)) }()
	return cli.LoadImage(context.Background(), r, 5*time.Minute)
}
