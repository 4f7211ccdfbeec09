// SPDX-License-Identifier: Apache-2.0

package misbehave

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func env(kv ...string) func(string) string {
	return func(k string) string {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == k {
				return kv[i+1]
			}
		}
		return ""
	}
}

func TestOffByDefault(t *testing.T) {
	now := time.Unix(1000, 0)
	s, err := Read(env("FAIL_HEALTH", "0", "HANG_ON_STOP", "false"), now)
	if err != nil {
		t.Fatal(err)
	}
	if s.Unhealthy(now.Add(time.Hour)) || s.CrashLoop != nil || s.LeakMiB != 0 || s.FillDir != "" || s.HangOnStop || s.MigrateFail {
		t.Errorf("something is on: %+v", s)
	}
}

func TestFailHealthAfter(t *testing.T) {
	now := time.Unix(1000, 0)
	s, err := Read(env("FAIL_HEALTH", "30s"), now)
	if err != nil {
		t.Fatal(err)
	}
	if s.Unhealthy(now.Add(29*time.Second)) || !s.Unhealthy(now.Add(30*time.Second)) {
		t.Error("health must fail from 30 s on, and not before")
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	for _, kv := range [][2]string{{"FAIL_HEALTH", "soon"}, {"CRASH_LOOP", "-1s"}, {"LEAK_MEMORY", "much"},
		{"LEAK_MEMORY", "-1"}, {"FILL_DISK", "512"}, {"FILL_DISK", "tmp:512"}, {"FILL_DISK", "/tmp:x"}, {"HANG_ON_STOP", "perhaps"}} {
		if _, err := Read(env(kv[0], kv[1]), time.Now()); err == nil || !strings.Contains(err.Error(), kv[0]) {
			t.Errorf("%s=%s: %v", kv[0], kv[1], err)
		}
	}
}

func TestCrash(t *testing.T) {
	s, err := Read(env("CRASH_LOOP", "1"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), func(string, ...any) {}); !errors.Is(err, ErrCrash) {
		t.Errorf("got %v", err)
	}
}

func TestFill(t *testing.T) {
	dir := t.TempDir()
	s, err := Read(env("FILL_DISK", dir+":2"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fill(context.Background(), func(string, ...any) {}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "filled"))
	if err != nil || st.Size() != 2<<20 {
		t.Errorf("%v %v", st, err)
	}
}
