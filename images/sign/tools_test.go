// SPDX-License-Identifier: Apache-2.0

//go:build engine

package sign

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/images/internal/foreign"
)

// A real systemd-boot signed by us is accepted by sbverify and osslsigncode,
// and refused by both once a byte is flipped.
func TestForeignVerifiersAgree(t *testing.T) {
	dir := t.TempDir()
	keyPath, certPath := filepath.Join(dir, "k.pem"), filepath.Join(dir, "c.pem")
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := MakePair(keyPath, certPath, "Holdfast test", now); err != nil {
		t.Fatal(err)
	}
	key, cert, err := LoadPair(keyPath, certPath)
	if err != nil {
		t.Fatal(err)
	}
	programs := []string{"systemd-bootx64.efi", "linuxx64.efi.stub"}
	if uki := os.Getenv("HOLDFAST_TEST_UKI"); uki != "" {
		programs = append(programs, uki)
	}
	for _, name := range programs {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(foreign.Tree(t), "usr/lib/systemd/boot/efi", name)
		}
		program, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		once, err := Authenticode(program, key, cert, now)
		if err != nil {
			t.Fatal(name, err)
		}
		twice, err := Authenticode(once, key, cert, now)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s: signing again differs (%v)", name, err)
		}
		good, bad := filepath.Join(dir, "good.efi"), filepath.Join(dir, "bad.efi")
		if err := os.WriteFile(good, once, 0o644); err != nil {
			t.Fatal(err)
		}
		once[len(program)/2] ^= 1
		if err := os.WriteFile(bad, once, 0o644); err != nil {
			t.Fatal(err)
		}
		if out := foreign.MustRun(t, "sbverify", "--cert", certPath, good); strings.Contains(out, "warning") || strings.Contains(out, "gap") {
			t.Errorf("%s: sbverify: %s", name, out)
		} else {
			t.Log(out)
		}
		out := foreign.MustRun(t, "osslsigncode", "verify", "-CAfile", certPath, "-TSA-CAfile", certPath, "-in", good)
		t.Log(out)
		for _, want := range []string{"Signature verification: ok", "Number of verified signatures: 1"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: osslsigncode does not say %q", name, want)
			}
		}
		for _, line := range strings.Split(out, "\n") {
			if c, ok := strings.CutPrefix(line, "Current PE checksum"); ok && !strings.Contains(out, "Calculated PE checksum"+strings.Replace(c, "   :", ":", 1)) {
				t.Log("checksum line:", line)
			}
		}
		if out, code := foreign.Run(t, "sbverify", "--cert", certPath, bad); code == 0 {
			t.Errorf("%s: sbverify takes a flipped byte: %s", name, out)
		}
		if out, code := foreign.Run(t, "osslsigncode", "verify", "-CAfile", certPath, "-in", bad); code == 0 {
			t.Errorf("%s: osslsigncode takes a flipped byte: %s", name, out)
		}
	}
}
