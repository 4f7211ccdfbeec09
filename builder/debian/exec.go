// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"

	"github.com/holdfast/holdfast/builder/sandbox"
)

// hostReady says what the host lacks to make Debian trees.
func hostReady() error {
	if os.Geteuid() != 0 {
		return errors.New("making Debian trees needs root: run as root or with sudo")
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return errors.New("mmdebstrap is not installed: apt-get install mmdebstrap")
	}
	return nil
}

// run runs a host program in a mount and process namespace of its own, so that
// nothing of it is left when this process dies, and returns what it printed.
func run(ctx context.Context, args []string) ([]byte, error) {
	var out bytes.Buffer
	err := sandbox.Run(ctx, sandbox.Cmd{Args: args, Stdout: &out, Stderr: &out, Env: hostEnv()})
	return out.Bytes(), err
}

// hostEnv is the little of the environment that Debian's tools may see, so
// that a bake does not depend on whose shell it runs in; proxies are the
// host's own affair.
func hostEnv() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"}
	for _, e := range os.Environ() {
		k, _, _ := strings.Cut(e, "=")
		switch strings.ToLower(k) {
		case "http_proxy", "https_proxy", "no_proxy", "tmpdir":
			env = append(env, e)
		}
	}
	return env
}

// output runs a host program and returns its standard output.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = hostEnv()
	return cmd.Output()
}
