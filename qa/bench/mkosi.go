// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/holdfast/holdfast/builder/sandbox"
)

// peerPackages are mkosi 25.3 and what it needs to make a signed disk with a
// verity root; all from Debian 13, in a tools tree of its own that no bake uses.
var peerPackages = []string{
	"apt", "ca-certificates", "cpio", "cryptsetup-bin", "debian-archive-keyring", "dosfstools", "e2fsprogs", "fdisk",
	"kmod", "mkosi", "mtools", "openssl", "python3", "python3-pefile", "sbsigntool", "squashfs-tools",
	"systemd-boot-efi", "systemd-boot-tools", "systemd-container", "systemd-repart", "systemd-ukify", "udev", "zstd",
}

// peer is mkosi with a configuration for the same packages and the same kind
// of disk as ours.
type peer struct {
	tree, dir string
	log       io.Writer
}

//go:embed mkosi.conf.tmpl
var mkosiConf string

// inside is where the peer's folder is seen from its tree.
const inside = "/run/bench"

// makePeer makes tree and configuration below dir, or finds them made.
func makePeer(ctx context.Context, dir, key, cert string, packages []string, log io.Writer) (*peer, error) {
	hash := sha256.Sum256([]byte(strings.Join(peerPackages, " ")))
	p := &peer{tree: filepath.Join(dir, fmt.Sprintf("tree-%x", hash[:8])), dir: filepath.Join(dir, "mkosi"), log: log}
	if _, err := os.Stat(p.tree); errors.Is(err, os.ErrNotExist) {
		making := p.tree + ".making"
		if err := os.RemoveAll(making); err != nil {
			return nil, err
		}
		fmt.Fprintln(log, "making a tree with mkosi, once")
		cmd := exec.CommandContext(ctx, "mmdebstrap", "--mode=root", "--variant=minbase",
			`--aptopt=APT::Install-Recommends "false"`, "--include="+strings.Join(peerPackages, ","), "trixie", making)
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("mmdebstrap: %w: %s", err, said.String())
		}
		if err := os.Rename(making, p.tree); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	return p, p.configure(key, cert, packages)
}

// configure writes mkosi's configuration folder anew.
func (p *peer) configure(key, cert string, packages []string) error {
	conf := filepath.Join(p.dir, "conf")
	if err := os.RemoveAll(conf); err != nil {
		return err
	}
	list, err := os.ReadFile(filepath.Join(p.tree, "etc/apt/sources.list"))
	if err != nil {
		return err
	}
	sources, err := deb822(string(list))
	if err != nil {
		return err
	}
	// systemd-boot is what mkosi installs its boot loader from.
	packages = append(slices.Clone(packages), "systemd-boot")
	var main bytes.Buffer
	if err := template.Must(template.New("").Parse(mkosiConf)).Execute(&main, packages); err != nil {
		return err
	}
	files := map[string]string{
		"mkosi.conf": main.String(),
		// Without this file mkosi adds archives of its own choice, and so
		// other package versions than ours.
		"mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources": sources,
		"mkosi.repart/00-esp.conf":                           "[Partition]\nType=esp\nFormat=vfat\nCopyFiles=/boot:/\nCopyFiles=/efi:/\nSizeMinBytes=256M\nSizeMaxBytes=256M\n",
		"mkosi.repart/10-root.conf":                          "[Partition]\nType=root\nFormat=squashfs\nCompression=zstd\nCompressionLevel=3\nCopyFiles=/\nVerity=data\nVerityMatchKey=root\nMinimize=best\n",
		"mkosi.repart/20-root-verity.conf":                   "[Partition]\nType=root-verity\nVerity=hash\nVerityMatchKey=root\nMinimize=best\n",
	}
	for _, pair := range [][2]string{{"mkosi.key", key}, {"mkosi.crt", cert}} {
		data, err := os.ReadFile(pair[1])
		if err != nil {
			return err
		}
		files[pair[0]] = string(data)
	}
	for name, text := range files {
		path := filepath.Join(conf, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	for _, d := range []string{"packages", "out", "work"} {
		if err := os.MkdirAll(filepath.Join(p.dir, d), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// build runs mkosi once; warm means that package metadata and packages are in
// its cache and the network is not asked.
func (p *peer) build(ctx context.Context, warm bool) error {
	only := "--cache-only=never"
	if warm {
		only = "--cache-only=always"
	}
	var said bytes.Buffer
	out := io.MultiWriter(&said, p.log)
	err := sandbox.Run(ctx, sandbox.Cmd{
		Args: []string{"mkosi", "--force", only, "--package-cache-dir=" + inside + "/packages",
			"--output-dir=" + inside + "/out", "--workspace-dir=" + inside + "/work", "build"},
		Env:    []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"},
		Dir:    inside + "/conf",
		Root:   p.tree,
		Binds:  []sandbox.Bind{{Host: p.dir, Tree: inside}, {Host: "/etc/resolv.conf", Tree: "/etc/resolv.conf"}},
		Stdout: out, Stderr: out,
	})
	if err != nil {
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		return fmt.Errorf("%w; it last said:\n%s", err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	return nil
}

// clean removes what a run made, but not its package cache.
func (p *peer) clean() error {
	for _, d := range []string{"out", "work"} {
		if err := os.RemoveAll(filepath.Join(p.dir, d)); err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(p.dir, d), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// deb822 turns one-line apt sources into the format mkosi reads.
func deb822(list string) (string, error) {
	var b strings.Builder
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) > 1 && strings.HasPrefix(f[1], "[") {
			f = append(f[:1], f[2:]...)
		}
		if len(f) < 4 || f[0] != "deb" {
			return "", fmt.Errorf("sources.list: %q is no package source", strings.TrimSpace(line))
		}
		fmt.Fprintf(&b, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n",
			f[1], f[2], strings.Join(f[3:], " "))
	}
	return b.String(), nil
}
