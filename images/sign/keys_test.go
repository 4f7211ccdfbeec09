// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func pemOf(t *testing.T, kind string, der []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestLoadPair(t *testing.T) {
	a, b := testPairs(t)
	rsaKey := a.key.(*rsa.PrivateKey)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	good := pemOf(t, "PRIVATE KEY", pkcs8, err)
	pkcs1 := pemOf(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil)
	cert := pemOf(t, "CERTIFICATE", a.cert.Raw, nil)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec8, err := x509.MarshalPKCS8PrivateKey(ec)
	ecPEM := pemOf(t, "PRIVATE KEY", ec8, err)
	for _, c := range []struct {
		name      string
		key, cert []byte
		mode      fs.FileMode
		want      string // "" is no error
	}{
		{"PKCS#8", good, cert, 0o600, ""},
		{"PKCS#1", pkcs1, cert, 0o400, ""},
		{"text before", append([]byte("comment\n"), pkcs1...), append([]byte("x\n"), cert...), 0o600, ""},
		{"group may read", good, cert, 0o640, "can be read by others (mode 0640): run chmod 600"},
		{"others may read", good, cert, 0o604, "run chmod 600"},
		{"other pair", good, pemOf(t, "CERTIFICATE", b.cert.Raw, nil), 0o600, "does not belong to the key"},
		{"no key in file", cert, cert, 0o600, "holds no PEM private key"},
		{"no certificate in file", good, good, 0o600, "holds no PEM certificate"},
		{"empty", nil, cert, 0o600, "holds no PEM private key"},
		{"small key", pemOf(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small), nil), cert, 0o600, "RSA of 1024 bits"},
		{"elliptic curve", ecPEM, cert, 0o600, "is not RSA"},
		{"elliptic curve, SEC1", pemOf(t, "EC PRIVATE KEY", []byte{1}, nil), cert, 0o600, "needs RSA"},
		{"encrypted", pemOf(t, "ENCRYPTED PRIVATE KEY", []byte{1}, nil), cert, 0o600, "is encrypted"},
		{"broken key", pemOf(t, "PRIVATE KEY", []byte{1}, nil), cert, 0o600, "does not parse"},
		{"broken certificate", good, pemOf(t, "CERTIFICATE", []byte{1}, nil), 0o600, "does not parse"},
		{"huge", bytes.Repeat([]byte("x"), maxPEM+1), cert, 0o600, "larger than 1 MiB"},
	} {
		dir := t.TempDir()
		keyPath, certPath := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
		if err := errors.Join(os.WriteFile(keyPath, c.key, c.mode), os.Chmod(keyPath, c.mode), os.WriteFile(certPath, c.cert, 0o644)); err != nil {
			t.Fatal(err)
		}
		key, got, err := LoadPair(keyPath, certPath)
		if c.want == "" {
			if err != nil || key == nil || !got.Equal(a.cert) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, want %q and the path", c.name, err, c.want)
		}
	}
	dir := t.TempDir()
	if _, _, err := LoadPair(filepath.Join(dir, "none"), filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no files: %v", err)
	}
	if _, _, err := LoadPair(dir, dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("folder as key: %v", err)
	}
}

func TestMakePairNeverOverwrites(t *testing.T) {
	for _, there := range []string{"key.pem", "cert.pem"} {
		dir := t.TempDir()
		path := filepath.Join(dir, there)
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := MakePair(filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem"), "x", now)
		if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s is there: %v", there, err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s is there: folder holds %v, %v", there, entries, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
			t.Errorf("%s was changed", there)
		}
	}
}

func FuzzParsePEM(f *testing.F) {
	a, _ := testPairs(f)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(a.key.(*rsa.PrivateKey))}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if key, err := parseKey(b); err == nil && key.N.BitLen() < minBits {
			t.Fatal("a small key passes")
		}
		if cert, err := parseCert(b); err == nil && cert.PublicKey.(*rsa.PublicKey).N.BitLen() < minBits {
			t.Fatal("a certificate for a small key passes")
		}
	})
}
