// SPDX-License-Identifier: Apache-2.0

// Command web is the demo's guest book: `web serve` answers people and
// programs over HTTP, `web migrate` brings the database to the schema that
// this version knows. Both read their settings from the environment:
//
//	LISTEN            address of serve, default :8080
//	DB_HOST, DB_PORT  default db, 5432
//	DB_NAME, DB_USER  default guestbook
//	DB_PASSWORD_FILE  default /run/secrets/db-password
//
// and the switches of package misbehave.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/compose/stacks/demo/misbehave"
)

// version is the release of the demo, set by the linker. It also decides which
// migrations this program knows.
var version = "1.1.0"

// migrateFor is how long migrate waits for a database that does not answer.
const migrateFor = 3 * time.Minute

func main() {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	if err := run(log, os.Args[1:], os.Getenv); err != nil {
		log.Error(err.Error())
		os.Exit(1)
	}
}

func run(log *slog.Logger, args []string, getenv func(string) string) error {
	if len(args) != 1 {
		return errors.New("usage: web serve | web migrate")
	}
	bad, err := misbehave.Read(getenv, time.Now())
	if err != nil {
		return err
	}
	known, err := migrationsOf(version)
	if err != nil {
		return err
	}
	db, err := newPool(settingsFrom(getenv))
	if err != nil {
		return err
	}
	defer db.close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	// A program that hangs on stop still hears the signal and goes on.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for s := range signals {
			if bad.HangOnStop {
				log.Warn("HANG_ON_STOP is set: going on", "signal", s.String())
				continue
			}
			log.Info("stopping", "signal", s.String())
			stop()
		}
	}()
	switch args[0] {
	case "serve":
		return serve(ctx, log, getenv, db, known, bad)
	case "migrate":
		ctx, cancel := context.WithTimeoutCause(ctx, migrateFor, fmt.Errorf("the database did not let itself be migrated in %v", migrateFor))
		defer cancel()
		var veto error
		if bad.MigrateFail {
			veto = errors.New("MIGRATE_FAIL is set: failing before the commit")
		}
		return migrate(ctx, log, db, known, version, veto)
	}
	return fmt.Errorf("unknown command %q: use serve or migrate", args[0])
}

// serve runs until ctx ends or a switch lets it die.
func serve(ctx context.Context, log *slog.Logger, getenv func(string) string, db *pool, known []migration, bad *misbehave.Switches) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	store := newPgStore(db, known)
	// Here the program is certain to run against the wrong data; see
	// pgStore.Schema. Not reaching the database is no reason to die: health
	// says so until it is there.
	first, cancel := context.WithTimeout(ctx, 5*time.Second)
	_, err := store.Schema(first)
	cancel()
	if newer := (*newerSchemaError)(nil); errors.As(err, &newer) {
		return err
	}
	go func() {
		if err := bad.Run(ctx, log.Warn); err != nil {
			stop(err)
		}
	}()
	addr := getenv("LISTEN")
	if addr == "" {
		addr = ":8080"
	}
	log.Info("serving", "version", version, "schema", len(known), "address", addr)
	err = listen(ctx, addr, newHandler(log, store, version, bad))
	if cause := context.Cause(ctx); errors.Is(cause, misbehave.ErrCrash) {
		return cause
	}
	return err
}
