// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Tree is an unpacked tools tree. Its programs run on the host with the
// tree's own loader and libraries instead of a chroot: so the process that a
// test starts is QEMU itself, sees the host's paths, needs no mounts, and
// killing it leaves nothing behind.
type Tree struct{ Dir string }

// needed are the tree's files that this package uses, with the package to
// install where one is missing.
var needed = []struct{ path, pkg string }{
	{"lib64/ld-linux-x86-64.so.2", "libc6"},
	{"usr/bin/qemu-system-x86_64", "qemu-system-x86"},
	{"usr/bin/qemu-img", "qemu-utils"},
	{"usr/bin/qemu-io", "qemu-utils"},
	{"usr/bin/python3", "python3"},
	{"usr/bin/virt-fw-vars", "python3-virt-firmware"},
	{"usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"},
	{"usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "ovmf"},
	{"usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf"},
}

// OpenTree checks that dir is a tools tree with all this package needs.
func OpenTree(dir string) (*Tree, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, n := range needed {
		if _, err := os.Stat(filepath.Join(abs, n.path)); err != nil {
			return nil, fmt.Errorf("tools tree %s lacks /%s (Debian package %s): make the tree again with `make tools`, or name another with HOLDFAST_TOOLS", abs, n.path, n.pkg)
		}
	}
	return &Tree{Dir: abs}, nil
}

// path of a file of the tree as the host sees it.
func (t *Tree) path(name string) string { return filepath.Join(t.Dir, name) }

// argv is the command line that runs a program of the tree.
func (t *Tree) argv(program string, args ...string) []string {
	return append([]string{
		t.path("lib64/ld-linux-x86-64.so.2"),
		"--library-path", t.path("usr/lib/x86_64-linux-gnu"),
		t.path("usr/bin/" + program),
	}, args...)
}

// env for the tree's Python; other programs ignore it.
func (t *Tree) env() []string {
	return append(os.Environ(),
		"PYTHONHOME="+t.path("usr"),
		"PYTHONPATH="+t.path("usr/lib/python3/dist-packages"),
		"PYTHONDONTWRITEBYTECODE=1",
		"LC_ALL=C.UTF-8")
}

// run runs a short-lived program of the tree and returns what it printed.
func (t *Tree) run(ctx context.Context, program string, args ...string) (string, error) {
	argv := t.argv(program, args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = t.env()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// script runs one of the tree's Python programs.
func (t *Tree) script(ctx context.Context, program string, args ...string) (string, error) {
	return t.run(ctx, "python3", append([]string{t.path("usr/bin/" + program)}, args...)...)
}

// accel is "kvm" where the processor can and "tcg,thread=multi" elsewhere. A
// /dev/kvm that opens proves nothing: nested hosts offer one that hangs.
func accel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if !strings.HasPrefix(line, "flags") {
			continue
		}
		for _, flag := range strings.Fields(line) {
			if flag == "vmx" || flag == "svm" {
				return "kvm"
			}
		}
	}
	return "tcg,thread=multi"
}
