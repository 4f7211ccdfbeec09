// SPDX-License-Identifier: Apache-2.0

// Command pginit is the entry point of the demo's database image. `pginit
// serve` makes a PostgreSQL cluster with one role and one database on an empty
// volume, and then becomes the server; `pginit health` connects as that role
// over TCP and asks a question. Both read their settings from the environment:
//
//	PGDATA            the volume, default /var/lib/postgresql/data
//	PGBIN             PostgreSQL's programs, default /usr/lib/postgresql/17/bin
//	DB_NAME, DB_USER  default guestbook
//	DB_PASSWORD_FILE  default /run/secrets/db-password
//
// and of the switches of package misbehave: CRASH_LOOP, FAIL_HEALTH (at once,
// whatever its value) and FILL_DISK.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/compose/stacks/demo/misbehave"
)

const (
	// major is the server's major version; a cluster belongs to one.
	major = "17"
	// owner is the system user the server runs as.
	owner = "postgres"
	// configFolder holds the server's configuration. It is in the image, not
	// in the volume: a new release brings a new one, and going back does too.
	configFolder = "/etc/postgresql"
)

// identifier is what a role or database may be called here, so that it needs
// no quoting.
var identifier = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

type settings struct{ volume, bin, name, user, passwordFile string }

func settingsFrom(getenv func(string) string) (settings, error) {
	or := func(key, def string) string {
		if v := getenv(key); v != "" {
			return v
		}
		return def
	}
	s := settings{volume: or("PGDATA", "/var/lib/postgresql/data"), bin: or("PGBIN", "/usr/lib/postgresql/"+major+"/bin"),
		name: or("DB_NAME", "guestbook"), user: or("DB_USER", "guestbook"), passwordFile: or("DB_PASSWORD_FILE", "/run/secrets/db-password")}
	if !identifier.MatchString(s.name) || !identifier.MatchString(s.user) || s.user == owner {
		return s, fmt.Errorf("DB_NAME=%q, DB_USER=%q: use a-z, 0-9 and _, and not the superuser's name", s.name, s.user)
	}
	if !filepath.IsAbs(s.volume) || !filepath.IsAbs(s.bin) {
		return s, fmt.Errorf("PGDATA=%q, PGBIN=%q: use absolute paths", s.volume, s.bin)
	}
	return s, nil
}

func main() {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	if err := run(log, os.Args[1:], os.Getenv); err != nil {
		log.Error(err.Error())
		os.Exit(1)
	}
}

func run(log *slog.Logger, args []string, getenv func(string) string) error {
	if len(args) != 1 {
		return errors.New("usage: pginit serve | pginit health")
	}
	s, err := settingsFrom(getenv)
	if err != nil {
		return err
	}
	bad, err := misbehave.Read(getenv, time.Now())
	if err != nil {
		return err
	}
	switch args[0] {
	case "serve":
		return serve(log, s, bad)
	case "health":
		if bad.FailHealth != nil {
			return errors.New("FAIL_HEALTH is set")
		}
		ctx, cancel := context.WithTimeout(context.Background(), healthFor)
		defer cancel()
		return health(ctx, s)
	}
	return fmt.Errorf("unknown command %q: use serve or health", args[0])
}

// serve never returns without an error: it becomes the server.
func serve(log *slog.Logger, s settings, bad *misbehave.Switches) error {
	if bad.CrashLoop != nil {
		return misbehave.ErrCrash
	}
	// The secret may be readable by root alone, so before dropping.
	password, err := readPassword(s.passwordFile)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		id, err := lookup(owner)
		if err != nil {
			return err
		}
		if err := handOver(s.volume, id); err != nil {
			return err
		}
		if err := become(id); err != nil {
			return err
		}
	}
	ctx := context.Background()
	if bad.FillDir != "" {
		if err := bad.Fill(ctx, log.Warn); err != nil {
			return err
		}
	}
	c := cluster{volume: s.volume, bin: s.bin, major: major}
	made, err := c.ensure(ctx, log, sqlFor(s.name, s.user, password))
	if err != nil {
		return err
	}
	log.Info("starting the server", "data", c.dir(), "new", made)
	server := filepath.Join(s.bin, "postgres")
	args := []string{"postgres", "-D", c.dir(), "-c", "config_file=" + filepath.Join(configFolder, "postgresql.conf")}
	// The same process: the engine's signals reach the server itself.
	return fmt.Errorf("%s: %w", server, syscall.Exec(server, args, []string{"PATH=" + s.bin + ":/usr/bin", "LC_ALL=C"}))
}
