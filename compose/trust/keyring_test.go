// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain is also the external signer of these tests.
func TestMain(m *testing.M) {
	if how := os.Getenv("TRUST_TEST_SIGNER"); how != "" {
		os.Exit(signer(how))
	}
	os.Exit(m.Run())
}

func signer(how string) int {
	switch how {
	case "none":
		return 3
	case "fails":
		fmt.Fprintln(os.Stderr, "the token is locked")
		return 1
	case "hangs":
		select {}
	case "long":
		os.Stdout.WriteString(strings.Repeat("x", 1<<20))
		return 0
	case "wrong":
		os.Stdout.WriteString(strings.Repeat("x", 64))
		return 0
	}
	payload := make([]byte, 1<<20)
	n, _ := os.Stdin.Read(payload)
	ring := &Keyring{Dir: how}
	sig, ok, err := ring.sign(context.Background(), os.Getenv("HOLDFAST_ROLE"), os.Getenv("HOLDFAST_KEY_ID"), nil, payload[:n])
	if err != nil || !ok {
		return 3
	}
	os.Stdout.Write(sig)
	return 0
}

// strip moves the private keys of a role elsewhere.
func strip(t *testing.T, r *Repository, role string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	files, err := filepath.Glob(filepath.Join(r.dir, PrivateDir, role+"-*.pem"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if err := os.Rename(f, filepath.Join(dir, filepath.Base(f))); err != nil {
			t.Fatal(err)
		}
	}
	r.Keys.loaded = false
	return dir
}

func TestKeyInEnvironment(t *testing.T) {
	r := vendor(t)
	dir := strip(t, r, RoleTargets)
	files, _ := filepath.Glob(filepath.Join(dir, "*.pem"))
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	value := ""
	r.Keys.Env = func(name string) string {
		if name == "HOLDFAST_KEY_TARGETS" {
			return value
		}
		return ""
	}
	if _, err := r.Offer(t.Context(), target("1.0.0", 1)); !errors.Is(err, ErrNoKey) {
		t.Error(err)
	}
	for i, good := range []string{string(text), base64.StdEncoding.EncodeToString(text)} {
		value = good
		if _, err := r.Offer(t.Context(), target("1.0.0", i+1)); err != nil && i == 0 {
			t.Error(err)
		}
		if err := r.Settle(t.Context(), RoleTargets); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"secret", "-----BEGIN NONSENSE", "AAAA", strings.Replace(string(text), "PRIVATE KEY", "EC PRIVATE KEY", 2)} {
		value = bad
		if err := r.Settle(t.Context(), RoleTargets); err == nil || !strings.Contains(err.Error(), "HOLDFAST_KEY_TARGETS") || strings.Contains(err.Error(), "AAAA") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestKeyFilesAreSecret(t *testing.T) {
	r := vendor(t)
	files, _ := filepath.Glob(filepath.Join(r.dir, PrivateDir, "*.pem"))
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 {
			t.Error(f, st.Mode(), err)
		}
	}
	if err := os.Chmod(files[0], 0o640); err != nil {
		t.Fatal(err)
	}
	r.Keys.loaded = false
	if _, err := r.Offer(t.Context(), target("1.0.0", 1)); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Error(err)
	}
}

func TestExternalSigner(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := vendor(t)
	dir := strip(t, r, RoleTargets)
	r.Keys.Command = []string{self}
	for how, want := range map[string]string{
		"none": "no private key", "fails": "the token is locked", "hangs": "longer than 200ms",
		"long": "4096 or more", "wrong": "did not make",
	} {
		t.Setenv("TRUST_TEST_SIGNER", how)
		r.Keys.Period = time.Minute
		if how == "hangs" {
			r.Keys.Period = 200 * time.Millisecond
		}
		if _, err := r.Offer(t.Context(), target("1.0.0", 1)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", how, err)
		}
	}
	t.Setenv("TRUST_TEST_SIGNER", dir)
	r.Keys.Period = time.Minute
	offer(t, r, target("1.0.0", 1))
	good(t, box(t, r), published(t, r), Options{}, "demo-1.0.0")
	r.Keys.Command = []string{"/does/not/exist"}
	if err := r.Settle(t.Context(), RoleTargets); err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Error(err)
	}
}

func TestPublicKeyElsewhere(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.pem")
	os.WriteFile(bad, []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), 0o644)
	for _, path := range []string{bad, filepath.Join(dir, "none.pem")} {
		if _, err := ReadPublicKey(path); err == nil {
			t.Errorf("%s is taken", path)
		}
	}
	public, _, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	r := &Repository{Now: start}
	keys := DefaultKeys()
	keys[RoleTargets] = RoleKeys{Threshold: 1}
	keys[RoleTimestamp] = RoleKeys{New: 1, Threshold: 2}
	if err := Init(t.Context(), filepath.Join(dir, "a"), keys, r); err == nil {
		t.Error("a role without keys is taken")
	}
	keys = DefaultKeys()
	keys[RoleTargets] = RoleKeys{Threshold: 1, Public: append(keys[RoleTargets].Public, public)}
	if err := Init(t.Context(), filepath.Join(dir, "b"), keys, r); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Files(); !errors.Is(err, ErrNoKey) {
		t.Error(err)
	}
	if err := Init(t.Context(), filepath.Join(dir, "b"), keys, r); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Error(err)
	}
	names, _ := os.ReadDir(dir)
	if len(names) != 2 {
		t.Errorf("%v is left behind", names)
	}
}
