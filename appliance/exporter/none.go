// SPDX-License-Identifier: Apache-2.0

//go:build !prom

package exporter

import (
	"context"
	"errors"
	"net/http"
)

// Serve says that this program was built without metrics.
func Serve(context.Context, Config) error {
	return errors.New("metrics: this program was built without them")
}

// New is a handler that says so.
func New(Config) http.Handler { return http.NotFoundHandler() }
