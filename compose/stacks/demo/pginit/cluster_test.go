// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// programs are stand-ins for initdb and postgres that keep a record.
func programs(t *testing.T, initdb, postgres string) string {
	t.Helper()
	bin := t.TempDir()
	for name, script := range map[string]string{"initdb": initdb, "postgres": postgres} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\nset -eu\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

const goodInitdb = `dir=${1#--pgdata=}
case "$2" in
--sync-only) test -f "$dir/sql"; touch "$dir/synced";;
*) mkdir "$dir"; echo 17 > "$dir/PG_VERSION";;
esac
`

const goodPostgres = `cat > "$4/sql"
`

func TestEnsureMakesAWholeCluster(t *testing.T) {
	vol := t.TempDir()
	c := cluster{vol, programs(t, goodInitdb, goodPostgres), "17"}
	// What a crash left.
	if err := os.MkdirAll(filepath.Join(c.unfinished(), "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	made, err := c.ensure(t.Context(), slog.New(slog.DiscardHandler), "SQL;\n\n")
	if err != nil || !made {
		t.Fatalf("%v %v", made, err)
	}
	for _, f := range []string{"PG_VERSION", "sql", "synced"} {
		if _, err := os.Stat(filepath.Join(vol, "17", f)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(c.unfinished()); err == nil {
		t.Error("the unfinished cluster is still there")
	}
	c.bin = "/nonexistent"
	if made, err := c.ensure(t.Context(), slog.New(slog.DiscardHandler), ""); err != nil || made {
		t.Errorf("again: %v %v", made, err)
	}
}

func TestFailureLeavesNoCluster(t *testing.T) {
	for name, bin := range map[string]string{
		"initdb":   programs(t, "mkdir ${1#--pgdata=}; exit 1", goodPostgres),
		"postgres": programs(t, goodInitdb, "echo no room >&2; exit 1"),
	} {
		c := cluster{t.TempDir(), bin, "17"}
		_, err := c.ensure(t.Context(), slog.New(slog.DiscardHandler), "")
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(c.dir()); err == nil {
			t.Errorf("%s: a cluster is there after a failure", name)
		}
	}
}

func TestForeignDataIsRefused(t *testing.T) {
	vol := t.TempDir()
	c := cluster{vol, "/nonexistent", "17"}
	if err := os.Mkdir(filepath.Join(vol, "16"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ensure(t.Context(), slog.New(slog.DiscardHandler), ""); err == nil || !strings.Contains(err.Error(), `"16"`) {
		t.Errorf("got %v", err)
	}
	if err := os.Mkdir(c.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir(), "PG_VERSION"), []byte("18\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ensure(t.Context(), slog.New(slog.DiscardHandler), ""); err == nil || !strings.Contains(err.Error(), "18") {
		t.Errorf("got %v", err)
	}
}

func TestPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	for in, ok := range map[string]bool{"correct horse'": true, "12345678\n": true, "short": false, "": false,
		"back\\slash1": false, "pässwörter": false, "line\nbreak1": false, strings.Repeat("x", 300): false} {
		if err := os.WriteFile(file, []byte(in), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readPassword(file); (err == nil) != ok {
			t.Errorf("%.20q: %v", in, err)
		}
	}
	if _, err := readPassword(file + ".none"); err == nil {
		t.Error("no error without a file")
	}
	if sql := sqlFor("db", "me", "it's"); !strings.Contains(sql, "PASSWORD 'it''s';\n\n") {
		t.Error(sql)
	}
}

func TestSettings(t *testing.T) {
	for k, v := range map[string]string{"DB_USER": "postgres", "DB_NAME": "x; DROP", "PGDATA": "data"} {
		if _, err := settingsFrom(func(key string) string {
			if key == k {
				return v
			}
			return ""
		}); err == nil {
			t.Errorf("%s=%s is accepted", k, v)
		}
	}
}
