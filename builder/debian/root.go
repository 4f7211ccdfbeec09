// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/durable"
)

// Repo makes a flat repository of exactly the set in dir: hard links (copies
// where the cache is on another file system) and an index. The set must have
// been fetched.
func (c *Cache) Repo(ctx context.Context, set lock.PackageSet, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	stanzas := make([]string, len(set.Packages))
	errs := make([]error, len(set.Packages))
	var wg sync.WaitGroup
	next := make(chan int)
	for range max(2, runtime.NumCPU()) {
		wg.Go(func() {
			for i := range next {
				stanzas[i], errs[i] = c.stanza(ctx, set.Packages[i])
			}
		})
	}
	for i := range set.Packages {
		next <- i
	}
	close(next)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var index strings.Builder
	for i, p := range set.Packages {
		name := p.SHA256 + ".deb"
		if err := link(c.Path(p), filepath.Join(dir, name)); err != nil {
			return err
		}
		fmt.Fprintf(&index, "%s\nFilename: ./%s\nSize: %d\nSHA256: %s\n\n", strings.TrimSpace(stanzas[i]), name, p.Size, p.SHA256)
	}
	if err := os.WriteFile(filepath.Join(dir, "Packages"), []byte(index.String()), 0o644); err != nil {
		return err
	}
	// mmdebstrap picks essential packages by the archive's suite, which apt
	// knows from a Release file only.
	release := fmt.Sprintf("Suite: %s\nCodename: %s\nDate: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n %x %d Packages\n",
		set.Suite, set.Suite, sha256.Sum256([]byte(index.String())), index.Len())
	return os.WriteFile(filepath.Join(dir, "Release"), []byte(release), 0o644)
}

// stanza is a package's own control stanza, kept beside the package.
func (c *Cache) stanza(ctx context.Context, p lock.Package) (string, error) {
	at := filepath.Join(c.Dir, p.SHA256+".control")
	if b, err := os.ReadFile(at); err == nil {
		return string(b), nil
	}
	out, err := output(ctx, "dpkg-deb", "-f", c.Path(p))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", p.Name, err)
	}
	f := fields(string(out))
	if f["Package"] != p.Name || f["Version"] != p.Version || f["Architecture"] != p.Arch {
		return "", fmt.Errorf("%s holds %s %s %s, but the lock says %s %s %s: lock anew with `holdfast-release lock --relock`",
			c.Path(p), f["Package"], f["Version"], f["Architecture"], p.Name, p.Version, p.Arch)
	}
	return string(out), durable.WriteFile(at, out, 0o644)
}

func link(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return nil
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// rootArgs is mmdebstrap's command line for a root of exactly the packages of
// the repository at repo; exclude are dpkg path patterns that are not unpacked
// (and include those that are all the same).
func rootArgs(set lock.PackageSet, repo, format, out string, exclude, include []string) []string {
	names := make([]string, len(set.Packages))
	for i, p := range set.Packages {
		names[i] = p.Name
	}
	args := []string{"mmdebstrap", "--mode=root", "--variant=essential", "--format=" + format,
		"--include=" + strings.Join(names, ","),
		`--aptopt=APT::Install-Recommends "false"`, `--aptopt=Acquire::Languages "none"`,
		`--aptopt=APT::Sandbox::User "root"`, `--aptopt=Acquire::Check-Date "false"`,
		"--dpkgopt=force-unsafe-io"}
	for _, p := range exclude {
		args = append(args, "--dpkgopt=path-exclude="+p)
	}
	for _, p := range include {
		args = append(args, "--dpkgopt=path-include="+p)
	}
	return append(args, set.Suite, out, "deb [trusted=yes] copy://"+repo+" ./")
}

// Exclude and Include are what no tree of ours unpacks: documentation for
// people who would read it on another machine. Copyright files stay.
var (
	Exclude = []string{"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*",
		"/usr/share/lintian/*", "/usr/share/bug/*", "/usr/share/bash-completion/*", "/usr/share/zsh/*"}
	Include = []string{"/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias"}
)

// MakeTree installs exactly the set into the folder dir with the host's
// mmdebstrap. The folder must not exist.
func (c *Cache) MakeTree(ctx context.Context, set lock.PackageSet, dir string) error {
	if err := hostReady(); err != nil {
		return err
	}
	repo, err := os.MkdirTemp(c.Dir, ".repo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(repo)
	if err := c.Repo(ctx, set, repo); err != nil {
		return err
	}
	out, err := run(ctx, rootArgs(set, repo, "directory", dir, Exclude, Include))
	if err != nil {
		return fmt.Errorf("mmdebstrap: %w\n%s", err, lastLines(out, 12))
	}
	return nil
}

// RootTar is the command that makes, inside a tools tree, a reproducible tar
// of a root of exactly the set, less the packages of purge, run by run (which
// may leave dependencies unmet): the repository must be bound at RepoAt, and the tar goes
// to standard output.
func RootTar(set lock.PackageSet, epoch int64, purge [][]string) sandbox.Cmd {
	args := rootArgs(set, RepoAt, "tar", "-", Exclude, Include)
	var hooks []string
	for _, names := range purge {
		hooks = append(hooks, `--customize-hook=chroot "$1" dpkg --purge --force-depends `+strings.Join(names, " "))
	}
	args = slices.Insert(args, 1, hooks...)
	return sandbox.Cmd{Args: args, Env: append(TreeEnv(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(epoch, 10))}
}

// RepoAt is where RootTar expects the flat repository.
const RepoAt = "/run/holdfast/repo"

// TreeEnv is the environment of everything that runs in a tools tree.
func TreeEnv() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root", "TMPDIR=/tmp", "DEBIAN_FRONTEND=noninteractive"}
}
