// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// cluster is a PostgreSQL data folder on a volume: VOLUME/MAJOR.
type cluster struct{ volume, bin, major string }

func (c cluster) dir() string { return filepath.Join(c.volume, c.major) }

// unfinished is where a cluster is made. It has its name only as long as it is
// not whole.
func (c cluster) unfinished() string { return filepath.Join(c.volume, "."+c.major+".new") }

// ensure makes the cluster if the volume has none, with the SQL applied. Power
// may fail at any point: the final name appears by one rename, after every
// byte below it is on disk, so a cluster is whole or not there.
func (c cluster) ensure(ctx context.Context, log *slog.Logger, sql string) (made bool, err error) {
	version, err := os.ReadFile(filepath.Join(c.dir(), "PG_VERSION"))
	if err == nil {
		if v := strings.TrimSpace(string(version)); v != c.major {
			return false, fmt.Errorf("%s holds a cluster of PostgreSQL %.20q, not %s", c.dir(), v, c.major)
		}
		return false, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if err := c.onlyOurs(); err != nil {
		return false, err
	}
	tmp := c.unfinished()
	if err := os.RemoveAll(tmp); err != nil {
		return false, err
	}
	log.Info("making a new cluster", "data", c.dir())
	for _, s := range []step{
		// Checksums find what a disk corrupts. The built-in locale sorts the
		// same under any C library, so an upgrade of the image never leaves
		// an index in another order than its table. Synced below, all at once.
		{[]string{"initdb", "--pgdata=" + tmp, "--username=" + owner, "--auth-local=peer", "--auth-host=scram-sha-256",
			"--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
			"--data-checksums", "--no-sync", "--no-instructions"}, ""},
		{[]string{"postgres", "--single", "-j", "-D", tmp, "-c", "exit_on_error=on", "-c", "log_statement=none",
			"-c", "password_encryption=scram-sha-256", owner}, sql},
		{[]string{"initdb", "--pgdata=" + tmp, "--sync-only"}, ""},
	} {
		if err := c.run(ctx, s); err != nil {
			return false, err
		}
	}
	if err := os.Rename(tmp, c.dir()); err != nil {
		return false, err
	}
	return true, syncDir(c.volume)
}

// onlyOurs refuses a volume on which something else lies where a cluster
// would: rather stop than start empty beside data that someone misses.
func (c cluster) onlyOurs() error {
	names, err := os.ReadDir(c.volume)
	if err != nil {
		return fmt.Errorf("the volume: %w", err)
	}
	for _, n := range names {
		switch n.Name() {
		case filepath.Base(c.unfinished()), "lost+found", "filled":
		default:
			return fmt.Errorf("the volume %s has no cluster of PostgreSQL %s, but %q: move it away, or mount the right volume", c.volume, c.major, n.Name())
		}
	}
	return nil
}

// step is one of PostgreSQL's programs and what it reads.
type step struct {
	args  []string
	input string
}

// maxOutput bounds what is kept of a program's output.
const maxOutput = 16 << 10

func (c cluster) run(ctx context.Context, s step) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, s.args[0]), s.args[1:]...)
	cmd.Env = []string{"PATH=" + c.bin + ":/usr/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.Dir = c.volume
	cmd.Stdin = strings.NewReader(s.input)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		out := said.Bytes()
		return fmt.Errorf("%s: %w: %s", s.args[0], err, bytes.TrimSpace(out[max(0, len(out)-maxOutput):]))
	}
	return nil
}

// sqlFor makes the role and its database. A blank line ends a statement in
// single-user mode (-j).
func sqlFor(name, user, password string) string {
	literal := "'" + strings.ReplaceAll(password, "'", "''") + "'"
	return "CREATE ROLE " + user + " LOGIN PASSWORD " + literal + ";\n\n" +
		"CREATE DATABASE " + name + " OWNER " + user + ";\n\n" +
		"REVOKE CONNECT, TEMPORARY ON DATABASE " + name + " FROM PUBLIC;\n\n"
}

const (
	minPassword = 8
	maxPassword = 256
)

// readPassword takes printable ASCII only: anything else would be normalised
// differently by different clients (SASLprep), and backslashes are not worth
// their trouble.
func readPassword(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("the password: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPassword+3))
	if err != nil {
		return "", fmt.Errorf("the password: %w", err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if len(s) < minPassword || len(s) > maxPassword {
		return "", fmt.Errorf("the password in %s must have %d to %d characters", file, minPassword, maxPassword)
	}
	for _, r := range s {
		if r < ' ' || r > '~' || r == '\\' {
			return "", fmt.Errorf("the password in %s must be printable ASCII without backslashes", file)
		}
	}
	return s, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
