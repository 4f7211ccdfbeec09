// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// need is something of the host that a bake cannot do without, and the Debian
// package that brings it. All else comes from the tools tree.
type need struct {
	program string // looked up on the PATH, or
	file    string // looked up as a path
	pkg     string
}

var needs = []need{
	{program: "mmdebstrap", pkg: "mmdebstrap"},
	// What apt checks the archive's signatures with.
	{file: "/usr/share/keyrings/debian-archive-keyring.gpg", pkg: "debian-archive-keyring"},
	{file: "/etc/ssl/certs/ca-certificates.crt", pkg: "ca-certificates"},
}

// missing lists the Debian packages of what the host lacks.
func missing(needs []need, hasProgram, hasFile func(string) bool) []string {
	var pkgs []string
	for _, n := range needs {
		if n.program != "" && !hasProgram(n.program) || n.file != "" && !hasFile(n.file) {
			pkgs = append(pkgs, n.pkg)
		}
	}
	return pkgs
}

// hostPackages installs what is missing, in the one way that asks nothing.
func hostPackages(ctx context.Context, o Options) error {
	pkgs := missing(needs, onPath, func(path string) bool { _, err := os.Stat(path); return err == nil })
	if len(pkgs) == 0 {
		return nil
	}
	list := strings.Join(pkgs, " ")
	if !onPath("apt-get") {
		return fmt.Errorf("this host has no apt-get: install %s by its own means, then run this again", list)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing on this host: %s; run this again as root, or: sudo apt-get install %s", list, list)
	}
	o.say("Installing %s", list)
	if err := run(ctx, o, aptEnv(), "apt-get", "-q", "update"); err != nil {
		// A host may hold a usable list already; the next step tells.
		o.say("apt-get update failed (%v), going on with the package lists that are there", err)
	}
	args := append([]string{"apt-get", "-q", "install", "--yes", "--no-install-recommends"}, pkgs...)
	if err := run(ctx, o, aptEnv(), args...); err != nil {
		return errors.Join(fmt.Errorf("cannot install %s: check the network and the host's apt sources, or install by hand", list), err)
	}
	return nil
}

func aptEnv() []string { return append(os.Environ(), "DEBIAN_FRONTEND=noninteractive") }
