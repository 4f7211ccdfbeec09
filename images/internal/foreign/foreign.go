// SPDX-License-Identifier: Apache-2.0

// Package foreign runs programs that we did not write, out of an unpacked
// Debian tree, so that tests can hold our formats against them. It needs no
// root and mounts nothing: the tree's own loader starts the program. Tests that use
// it carry the build tag "engine".
package foreign

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Tree is the folder of the tools tree; the test fails when none is named.
func Tree(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("HOLDFAST_TOOLS")
	if dir == "" {
		t.Fatal("set HOLDFAST_TOOLS to an unpacked tools tree (holdfast-release makes one in its cache)")
	}
	return dir
}

// Run runs a program of the tree and returns its output, standard error
// included, and its exit code.
func Run(t testing.TB, program string, args ...string) (string, int) {
	t.Helper()
	tree := Tree(t)
	path := ""
	for _, dir := range []string{"usr/bin", "usr/sbin"} {
		if p := filepath.Join(tree, dir, program); exists(p) {
			path = p
		}
	}
	if path == "" {
		t.Fatalf("the tools tree %s has no %s: add its package to the tree", tree, program)
	}
	lib := filepath.Join(tree, "usr/lib/x86_64-linux-gnu")
	loader := filepath.Join(tree, "usr/lib64/ld-linux-x86-64.so.2")
	if !exists(loader) {
		loader = filepath.Join(lib, "ld-linux-x86-64.so.2")
	}
	cmd := exec.CommandContext(t.Context(), loader,
		append([]string{"--library-path", lib + ":" + filepath.Join(lib, "systemd"), "--argv0", program, path}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", "MTOOLS_SKIP_CHECK=1")
	cmd.Dir = t.TempDir()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", program, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// MustRun is Run for programs that must succeed.
func MustRun(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, code := Run(t, program, args...)
	if code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s", program, strings.Join(args, " "), code, out)
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
