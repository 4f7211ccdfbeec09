// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/images/sign"
	"github.com/holdfast/holdfast/images/uefivars"
)

func TestSignKeys(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(sign.MakePair(in("a.key"), in("a.crt"), "a", at), sign.MakePair(in("b.key"), in("b.crt"), "b", at)); err != nil {
		t.Fatal(err)
	}
	keys, err := uefivars.Load(in("a.crt"), uefivars.Files{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := signKeys(keys, secureBootOptions{key: in("a.key"), cert: in("a.crt")}, at)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.name)
		if !strings.HasSuffix(string(f.data), string(keys.PK.Raw)) {
			t.Errorf("%s does not end with the certificate", f.name)
		}
	}
	if strings.Join(names, " ") != "PK.auth KEK.auth db.auth" {
		t.Errorf("%q", names)
	}
	if _, err := signKeys(keys, secureBootOptions{key: in("b.key"), cert: in("b.crt")}, at); err == nil || !strings.Contains(err.Error(), "give the pair that PK belongs to") {
		t.Errorf("signed by another: %v", err)
	}
	if _, err := signKeys(keys, secureBootOptions{key: in("b.key"), cert: in("a.crt")}, at); err == nil || !strings.Contains(err.Error(), "does not belong to the key") {
		t.Errorf("a pair that is none: %v", err)
	}
}
