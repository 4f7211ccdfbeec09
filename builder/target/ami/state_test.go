// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func someState(t testing.TB) *state {
	t.Helper()
	s := newState(strings.Repeat("a", 64), "snap-0a", []string{"eu-central-1"})
	s.Started, s.Snapshot = time.Unix(1000, 0).UTC(), "snap-0b"
	s.mark(0)
	s.mark(77)
	return s
}

func TestState(t *testing.T) {
	s, err := openStore(t.TempDir(), "eu-central-1", "", "demo")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if got, err := s.load(); got != nil || err != nil {
		t.Errorf("an empty store has %v, %v", got, err)
	}
	want := someState(t)
	if err := s.save(want); err != nil {
		t.Fatal(err)
	}
	got, err := s.load()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("loaded %+v, %v, want %+v", got, err, want)
	}
	for i := range int32(100) {
		if got.has(i) != (i == 0 || i == 77) {
			t.Errorf("block %d: %v", i, got.has(i))
		}
	}
	if a, b := got.token("snapshot"), got.token("copy to x"); len(a) != 64 || a == b || a != want.token("snapshot") {
		t.Errorf("tokens %s and %s", a, b)
	}
	// A state that cannot be read is an error, not a crash and not a state.
	for _, bad := range []string{"", "{}", `{"format":2}`, `{"format":1,"upload":"x"}`, strings.Repeat("[", 10000)} {
		if err := os.WriteFile(s.file, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := s.load(); err == nil || got != nil {
			t.Errorf("%.20q was read as %v", bad, got)
		}
	}
	if err := s.forget(); err != nil {
		t.Error(err)
	}
	if err := s.forget(); err != nil {
		t.Error(err)
	}
}

// Two runs under one name to one region would write one snapshot.
func TestStoreIsOnes(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir, "eu-central-1", "", "demo")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(dir, "eu-central-1", "", "demo"); err == nil || !strings.Contains(err.Error(), "another run on this machine") {
		t.Errorf("a second run: %v", err)
	}
	other, err := openStore(dir, "us-east-1", "", "demo")
	if err != nil {
		t.Fatal(err)
	}
	other.close()
	s.close()
	if s, err = openStore(dir, "eu-central-1", "", "demo"); err != nil {
		t.Fatal(err)
	}
	s.close()
}

func FuzzParseState(f *testing.F) {
	b, err := json.Marshal(someState(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1,"sent":"////"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseState(b)
		if err != nil {
			return
		}
		for i := range int32(64) {
			s.mark(i)
			if !s.has(i) {
				t.Error("a mark is lost")
			}
		}
	})
}
