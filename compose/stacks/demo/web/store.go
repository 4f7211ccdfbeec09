// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// placeSchema is the first schema whose entries have a place.
const placeSchema = 2

// pgStore keeps entries in PostgreSQL.
type pgStore struct {
	db    *pool
	known int
}

func newPgStore(db *pool, known []migration) *pgStore { return &pgStore{db, len(known)} }

func (s *pgStore) HasPlace() bool { return s.known >= placeSchema }

// Schema also refuses a schema older or newer than the one this program was
// written for. Newer happens only if data was switched without the code, or
// the other way round: then not serving is the one safe thing.
func (s *pgStore) Schema(ctx context.Context) (n int, err error) {
	err = s.db.with(ctx, func(c *pgx.Conn) error {
		n, err = schemaOf(ctx, c)
		return err
	})
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "42P01", err == nil && n < s.known: // 42P01 undefined_table
		return n, fmt.Errorf("the database has schema %d, this release needs %d: run migrate first", n, s.known)
	case err != nil:
		return 0, err
	case n > s.known:
		return n, &newerSchemaError{n, s.known}
	}
	return n, nil
}

func (s *pgStore) Newest(ctx context.Context, limit int) (entries []Entry, total int64, err error) {
	place := "''"
	if s.HasPlace() {
		place = "place"
	}
	sql := "SELECT id, author, message, " + place + ", created_at, (SELECT count(*) FROM entries) FROM entries ORDER BY id DESC LIMIT $1"
	err = s.db.with(ctx, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, sql, limit)
		if err != nil {
			return err
		}
		entries, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (Entry, error) {
			var e Entry
			err := r.Scan(&e.ID, &e.Author, &e.Message, &e.Place, &e.Created, &total)
			return e, err
		})
		return err
	})
	return entries, total, err
}

func (s *pgStore) Add(ctx context.Context, e Entry) (Entry, error) {
	sql, args := "INSERT INTO entries (author, message) VALUES ($1, $2) RETURNING id, created_at", []any{e.Author, e.Message}
	if s.HasPlace() {
		sql, args = "INSERT INTO entries (author, message, place) VALUES ($1, $2, $3) RETURNING id, created_at", append(args, e.Place)
	}
	err := s.db.with(ctx, func(c *pgx.Conn) error { return c.QueryRow(ctx, sql, args...).Scan(&e.ID, &e.Created) })
	return e, err
}
