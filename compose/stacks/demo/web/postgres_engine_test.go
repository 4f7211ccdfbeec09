// SPDX-License-Identifier: Apache-2.0

//go:build engine

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// postgres is a server of the test's own, whatever version the host has.
type postgres struct {
	bin, dir, port string
	as             *syscall.SysProcAttr
	cmd            *exec.Cmd
	settings       settings
}

func newPostgres(t *testing.T) *postgres {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		t.Fatal("this test needs a PostgreSQL server: apt-get install postgresql")
	}
	p := &postgres{bin: filepath.Dir(found[len(found)-1])}
	// Not t.TempDir: the server's user must be able to reach it.
	dir, err := os.MkdirTemp("/tmp", "guestbook-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p.dir = filepath.Join(dir, "data")
	if os.Geteuid() == 0 {
		u, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		p.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	c := exec.CommandContext(t.Context(), filepath.Join(p.bin, "initdb"), "-D", p.dir, "-U", "guestbook", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	c.SysProcAttr, c.Dir = p.as, dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, p.port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("unused\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.settings = settings{host: "127.0.0.1", port: p.port, name: "postgres", user: "guestbook", passwordFile: password}
	return p
}

func (p *postgres) start(t *testing.T) {
	t.Helper()
	// Ended by stop, after the test's context.
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(p.bin, "postgres"), "-D", p.dir, "-k", filepath.Dir(p.dir), "-p", p.port, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")
	p.cmd.SysProcAttr, p.cmd.Dir = p.as, filepath.Dir(p.dir)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (p *postgres) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	_ = p.cmd.Wait()
}

func TestAgainstPostgreSQL(t *testing.T) {
	p := newPostgres(t)
	p.start(t)
	defer func() { p.stop() }()
	db, err := newPool(p.settings)
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("waited 2 min for PostgreSQL"))
	defer cancel()
	one, _ := migrationsOf("1.0.0")
	two, _ := migrationsOf("1.1.0")
	old, now := newPgStore(db, one), newPgStore(db, two)

	// migrate waits for the server by itself; several at once do it once.
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { errs[i] = migrate(ctx, log, db, one, "1.0.0", nil) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if n, err := old.Schema(ctx); err != nil || n != 1 {
		t.Fatalf("schema %d, %v", n, err)
	}
	if _, err := now.Schema(ctx); err == nil {
		t.Error("1.1.0 serves schema 1")
	}
	if e, err := old.Add(ctx, Entry{Author: "Ada", Message: "'; DROP TABLE entries; --"}); err != nil || e.ID != 1 || e.Created.IsZero() {
		t.Fatalf("%+v %v", e, err)
	}

	veto := errors.New("veto")
	if err := migrate(ctx, log, db, two, "1.1.0", veto); !errors.Is(err, veto) {
		t.Errorf("got %v", err)
	}
	if n, err := old.Schema(ctx); err != nil || n != 1 {
		t.Errorf("after a failed migration: schema %d, %v", n, err)
	}
	for range 2 {
		if err := migrate(ctx, log, db, two, "1.1.0", nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := now.Add(ctx, Entry{Author: "Bob", Message: "second", Place: "Rome"}); err != nil {
		t.Fatal(err)
	}
	entries, total, err := now.Newest(ctx, 10)
	places := []string{}
	for _, e := range entries {
		places = append(places, e.Author+"/"+e.Place)
	}
	if err != nil || total != 2 || !slices.Equal(places, []string{"Bob/Rome", "Ada/"}) {
		t.Errorf("%v, total %d, %v", places, total, err)
	}

	newer := &newerSchemaError{}
	if _, err := old.Schema(ctx); !errors.As(err, &newer) || newer.found != 2 {
		t.Errorf("1.0.0 on schema 2: %v", err)
	}
	if err := migrate(ctx, log, db, one, "1.0.0", nil); !errors.As(err, &newer) {
		t.Errorf("1.0.0 migrates schema 2: %v", err)
	}

	// Connections of before a restart must not fail a request after it.
	p.stop()
	if _, err := now.Schema(ctx); err == nil {
		t.Error("no error while the server is away")
	}
	p.start(t)
	if err := migrate(ctx, log, db, two, "1.1.0", nil); err != nil {
		t.Error(err)
	}
	if n, err := now.Schema(ctx); err != nil || n != 2 {
		t.Errorf("after a restart: schema %d, %v", n, err)
	}
}
