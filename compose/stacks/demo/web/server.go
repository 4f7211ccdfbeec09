// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// Bounds of one connection. A guest book has no slow answers; what takes
// longer is a client that holds a connection.
const (
	readHeader = 10 * time.Second
	readAll    = 20 * time.Second
	writeAll   = 30 * time.Second
	idle       = 2 * time.Minute
	// drain is less than the stack's stop_grace_period, so that open answers
	// end by themselves.
	drain = 8 * time.Second
)

// listen serves until ctx ends, then lets open answers finish.
func listen(ctx context.Context, addr string, h http.Handler) error {
	l, err := new(net.ListenConfig).Listen(context.WithoutCancel(ctx), "tcp", addr)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: readHeader, ReadTimeout: readAll, WriteTimeout: writeAll,
		IdleTimeout: idle, MaxHeaderBytes: 16 << 10}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		return errors.Join(errors.New("open answers did not end in time"), err, srv.Close())
	}
	return nil
}
