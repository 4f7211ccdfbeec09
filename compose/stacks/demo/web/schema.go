// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"embed"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migration is one step of the schema, numbered by its place in the list.
type migration struct {
	name string
	sql  string
}

// releases tells which release brought which migration, in order: a program
// built as an older release knows only those up to its own.
var releases = []struct{ since, file string }{
	{"1.0.0", "0001_entries.sql"},
	{"1.1.0", "0002_place.sql"},
}

// migrationsOf are the migrations that a release knows.
func migrationsOf(version string) ([]migration, error) {
	own, err := parseVersion(version)
	if err != nil {
		return nil, err
	}
	var known []migration
	for _, r := range releases {
		since, err := parseVersion(r.since)
		if err != nil {
			return nil, err
		}
		if slices.Compare(since, own) > 0 {
			break
		}
		b, err := migrationFiles.ReadFile("migrations/" + r.file)
		if err != nil {
			return nil, err
		}
		known = append(known, migration{name: strings.TrimSuffix(r.file, ".sql"), sql: string(b)})
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("version %s is older than the first schema", version)
	}
	return known, nil
}

func parseVersion(s string) ([]int, error) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("version %q is not like 1.2.3", s)
	}
	var v []int
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("version %q is not like 1.2.3", s)
		}
		v = append(v, int(n))
	}
	return v, nil
}

// newerSchemaError: the database was migrated by a newer release. Code and
// data of a box go forward and back together, so this program has the wrong
// data before it; writing to it could spoil what the newer release relies on.
type newerSchemaError struct{ found, known int }

func (e *newerSchemaError) Error() string {
	return fmt.Sprintf("the database has schema %d, this release knows up to %d: it was written by a newer release; run that one, or restore the data that belongs to this one",
		e.found, e.known)
}

// migrationLock is an arbitrary number: any two migrations of this database
// take the same advisory lock.
const migrationLock = 0x686f6c6466617374

// migrate brings the schema to the known one in a single transaction: after a
// crash it is the old schema or the new one. Run again it does nothing. It
// tries until ctx ends if the database does not answer. A veto lets it fail
// when all is done but the commit.
func migrate(ctx context.Context, log *slog.Logger, db *pool, known []migration, by string, veto error) error {
	for delay := 250 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		err := db.with(ctx, func(c *pgx.Conn) error { return migrateOnce(ctx, log, c, known, by, veto) })
		if err == nil || !isUnreachable(err) {
			return err
		}
		log.Warn("the database does not answer, trying again", "error", err, "in", delay)
		t := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		case <-t.C:
		}
	}
}

func migrateOnce(ctx context.Context, log *slog.Logger, c *pgx.Conn, known []migration, by string, veto error) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	// The lock comes before the first look: two that start together must not
	// both find an empty database.
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (
		version    integer PRIMARY KEY,
		name       text NOT NULL,
		release    text NOT NULL,
		applied_at timestamptz NOT NULL DEFAULT now())`); err != nil {
		return err
	}
	at, err := schemaOf(ctx, tx)
	if err != nil {
		return err
	}
	if at > len(known) {
		return &newerSchemaError{at, len(known)}
	}
	for i, m := range known[at:] {
		n := at + i + 1
		if _, err := tx.Exec(ctx, m.sql); err != nil {
			return fmt.Errorf("migration %s: %w", m.name, err)
		}
		if _, err := tx.Exec(ctx, "INSERT INTO schema_migrations (version, name, release) VALUES ($1, $2, $3)", n, m.name, by); err != nil {
			return err
		}
		log.Info("migrated", "schema", n, "name", m.name)
	}
	if veto != nil {
		return veto
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	log.Info("the schema is current", "schema", len(known), "applied", len(known)-at)
	return nil
}

// querier is what schemaOf needs of a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func schemaOf(ctx context.Context, q querier) (int, error) {
	var n int
	err := q.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM schema_migrations").Scan(&n)
	return n, err
}
