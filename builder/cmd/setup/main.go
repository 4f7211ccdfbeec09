// SPDX-License-Identifier: Apache-2.0

// Program setup is what the Makefile runs first: it makes a checkout ready to
// bake (package setup). It takes no arguments.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/holdfast/holdfast/builder/setup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "setup:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	// The same folder as builder.CacheDir, which is not imported: this program
	// is compiled first and must be small.
	cache := os.Getenv("HOLDFAST_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("no cache folder: set HOLDFAST_CACHE (%w)", err)
		}
		cache = filepath.Join(user, "holdfast")
	}
	if cache, err = filepath.Abs(cache); err != nil {
		return err
	}
	return setup.Run(ctx, setup.Options{Dir: dir, Cache: cache, Out: os.Stderr})
}
