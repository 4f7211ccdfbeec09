// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// settings say where the database is.
type settings struct{ host, port, name, user, passwordFile string }

func settingsFrom(getenv func(string) string) settings {
	or := func(key, def string) string {
		if v := getenv(key); v != "" {
			return v
		}
		return def
	}
	return settings{host: or("DB_HOST", "db"), port: or("DB_PORT", "5432"), name: or("DB_NAME", "guestbook"),
		user: or("DB_USER", "guestbook"), passwordFile: or("DB_PASSWORD_FILE", "/run/secrets/db-password")}
}

const (
	maxConns       = 6
	connectFor     = 5 * time.Second
	statementFor   = 10 * time.Second
	freshFor       = time.Second
	maxPasswordLen = 1 << 10
)

// pool is a few connections, made when needed.
type pool struct {
	s      settings
	config *pgx.ConnConfig
	slots  chan struct{}
	idle   chan idleConn
}

type idleConn struct {
	*pgx.Conn
	since time.Time
}

func newPool(s settings) (*pool, error) {
	port, err := strconv.ParseUint(s.port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("DB_PORT=%q is no port", s.port)
	}
	// An explicit string: pgx would otherwise read PG* variables and files in
	// the home folder.
	c, err := pgx.ParseConfig("sslmode=disable host=localhost user=x database=x")
	if err != nil {
		return nil, err
	}
	c.Host, c.Port, c.Database, c.User = s.host, uint16(port), s.name, s.user
	c.ConnectTimeout = connectFor
	c.RuntimeParams = map[string]string{"application_name": "guestbook",
		"statement_timeout": strconv.FormatInt(statementFor.Milliseconds(), 10)}
	return &pool{s: s, config: c, slots: make(chan struct{}, maxConns), idle: make(chan idleConn, maxConns)}, nil
}

// with runs f on a connection of its own.
func (p *pool) with(ctx context.Context, f func(*pgx.Conn) error) error {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("all connections to the database are in use: %w", context.Cause(ctx))
	}
	defer func() { <-p.slots }()
	c, err := p.get(ctx)
	if err != nil {
		return err
	}
	err = f(c)
	if c.IsClosed() || c.PgConn().TxStatus() != 'I' {
		closeConn(c)
		return err
	}
	p.idle <- idleConn{c, time.Now()} // as many places as slots: never blocks
	return err
}

// get takes an idle connection that still answers, or makes one.
func (p *pool) get(ctx context.Context) (*pgx.Conn, error) {
	for {
		select {
		case c := <-p.idle:
			// The database may have been restarted since.
			if time.Since(c.since) < freshFor || c.Ping(ctx) == nil {
				return c.Conn, nil
			}
			closeConn(c.Conn)
			continue
		default:
		}
		password, err := readPassword(p.s.passwordFile)
		if err != nil {
			return nil, err
		}
		config := p.config.Copy()
		config.Password = password
		return pgx.ConnectConfig(ctx, config)
	}
}

func (p *pool) close() {
	for {
		select {
		case c := <-p.idle:
			closeConn(c.Conn)
		default:
			return
		}
	}
}

func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx)
}

// readPassword reads the secret each time, so that the program can start
// before it is there.
func readPassword(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("the database password: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPasswordLen+1))
	if err != nil {
		return "", fmt.Errorf("the database password: %w", err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" || len(s) > maxPasswordLen {
		return "", fmt.Errorf("the database password in %s is empty or longer than %d bytes", file, maxPasswordLen)
	}
	return s, nil
}

// isUnreachable tells errors that time may mend from those it does not.
func isUnreachable(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// 57P03 cannot_connect_now, 53300 too_many_connections, 57P01 admin_shutdown.
		return pg.Code == "57P03" || pg.Code == "53300" || pg.Code == "57P01"
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, os.ErrNotExist) || errors.Is(err, io.ErrUnexpectedEOF)
}
