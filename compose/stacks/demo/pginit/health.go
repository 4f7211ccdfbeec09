// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// healthFor bounds one check; it is less than the stack's healthcheck timeout,
// so that the reason is told.
const healthFor = 12 * time.Second

// health goes the way a client goes: TCP, password, database. A server that
// still starts, recovers or has lost its role does not pass.
func health(ctx context.Context, s settings) error {
	password, err := readPassword(s.passwordFile)
	if err != nil {
		return err
	}
	// An explicit string: otherwise PG* variables and files would count.
	c, err := pgconn.ParseConfig("sslmode=disable host=127.0.0.1 port=5432 user=x database=x")
	if err != nil {
		return err
	}
	c.User, c.Database, c.Password = s.user, s.name, password
	c.RuntimeParams = map[string]string{"application_name": "health"}
	conn, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT 1").ReadAll()
	if closeErr := conn.Close(ctx); err == nil {
		err = closeErr
	}
	return err
}
