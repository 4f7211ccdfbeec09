// SPDX-License-Identifier: Apache-2.0

// Package tools makes and enters the tools tree: a Debian 13 root that holds
// every program a bake runs, made once from the lock's package set and kept in
// the cache under the hash of that set. So a bake does not depend on what the
// host has installed. A tree is never changed once it has its name.
package tools

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/durable"
)

// Packages are what a tools tree holds. The same Debian suite as the root: the
// initrd is made of this tree's systemd, so both must be of one state of the
// mirror.
var Packages = []string{
	// makes the root file system
	"mmdebstrap", "dpkg", "apt", "zstd", "xz-utils",
	// makes the initrd
	"dracut-core", "systemd", "systemd-cryptsetup", "udev", "kmod", "dmsetup", "cryptsetup-bin", "cpio",
	// makes root image, UKI, boot partition
	"squashfs-tools-ng", "systemd-ukify", "systemd-boot-efi", "systemd-repart",
	// boots the image (run and tests) with and without Secure Boot
	"qemu-system-x86", "qemu-utils", "ovmf", "python3-virt-firmware", "iproute2",
	// looks at images (tests)
	"mtools", "dosfstools", "gdisk", "sbsigntool", "osslsigncode", "squashfs-tools", "openssl",
	// the engine of the box, for engine tests against the same version
	"docker.io", "docker-cli", "docker-compose", "iptables", "procps",
	// stands in for AWS, and checks XML (tests)
	"python3-moto", "python3-flask", "python3-flask-cors", "python3-openapi-spec-validator", "libxml2-utils", "pigz",
	// scrapes a box and checks rules and metrics (tests)
	"prometheus",
}

// Tree is a finished tools tree.
type Tree struct {
	// Dir is its root folder.
	Dir string
	// Hash is the sha256 over its package set, 64 hex digits.
	Hash string
}

// Hash is the identity of the tree that a package set makes.
func Hash(set lock.PackageSet) string {
	h := sha256.New()
	fmt.Fprintf(h, "tree 1 %s\n", set.Suite)
	for _, p := range set.Packages {
		fmt.Fprintf(h, "%s %s\n", p.Name, p.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Find returns the tree of the set when dir already holds it.
func Find(dir string, set lock.PackageSet) (*Tree, bool) {
	t := &Tree{Hash: Hash(set)}
	t.Dir = filepath.Join(dir, t.Hash[:24])
	st, err := os.Stat(t.Dir)
	return t, err == nil && st.IsDir()
}

// Ensure returns the tree of the set below dir, made from fetched packages
// when it is not there yet. Several processes may call it at once: one makes,
// the others wait. What a killed one left behind is cleared first.
func Ensure(ctx context.Context, dir string, cache *debian.Cache, set lock.PackageSet) (t *Tree, made bool, err error) {
	t, ok := Find(dir, set)
	if ok {
		return t, false, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, false, err
	}
	unlock, err := Lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	if t, ok := Find(dir, set); ok {
		return t, false, nil
	}
	left, err := filepath.Glob(filepath.Join(dir, ".making-*"))
	if err != nil {
		return nil, false, err
	}
	for _, d := range left {
		if err := os.RemoveAll(d); err != nil {
			return nil, false, err
		}
	}
	tmp := filepath.Join(dir, ".making-"+t.Hash[:24])
	if err := cache.MakeTree(ctx, set, tmp); err != nil {
		os.RemoveAll(tmp)
		return nil, false, fmt.Errorf("making the tools tree: %w", err)
	}
	// The name is what says the tree is whole, so its bytes go first.
	unix.Sync()
	if err := durable.Rename(tmp, t.Dir); err != nil {
		return nil, false, err
	}
	return t, true, nil
}

// Lock takes an exclusive lock on a file, waiting for it; the kernel lets go
// of it when the holder dies.
func Lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// Run runs c with the tree as its root. c.Env, when nil, is debian.TreeEnv.
func (t *Tree) Run(ctx context.Context, c sandbox.Cmd) error {
	c.Root = t.Dir
	if c.Env == nil {
		c.Env = debian.TreeEnv()
	}
	if err := sandbox.Run(ctx, c); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(c.Args[:min(2, len(c.Args))], " "), err)
	}
	return nil
}
