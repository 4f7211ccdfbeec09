// SPDX-License-Identifier: Apache-2.0

//go:build engine

package ova

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/internal/foreign"
)

// GNU tar lists the envelope first and takes everything out without a word;
// openssl agrees with digests and signature.
func TestForeignToolsAgree(t *testing.T) {
	dir := t.TempDir()
	disk := bytes.Repeat([]byte("disk "), 50_000)
	file := write(t, sample(disk, signer()))
	list := foreign.MustRun(t, "tar", "--list", "--verbose", "--numeric-owner", "--utc", "--file", file)
	for i, line := range strings.Split(strings.TrimSpace(list), "\n") {
		want := []string{".ovf", ".mf", ".cert", "-disk1.vmdk"}[i]
		if !strings.HasPrefix(line, "-rw-r--r-- 0/0 ") || !strings.HasSuffix(line, " 1980-01-01 00:00 demo-1.0.0"+want) {
			t.Errorf("line %d: %q", i, line)
		}
	}
	if out := foreign.MustRun(t, "tar", "--extract", "--no-same-owner", "--directory", dir, "--file", file); out != "" {
		t.Errorf("tar says: %s", out)
	}
	at := func(ending string) string { return filepath.Join(dir, "demo-1.0.0"+ending) }
	if !bytes.Equal(read(t, at("-disk1.vmdk")), disk) {
		t.Error("tar takes out another disk")
	}
	for _, ending := range []string{".ovf", "-disk1.vmdk"} {
		out := foreign.MustRun(t, "openssl", "dgst", "-sha256", "-r", at(ending))
		digest, _, _ := strings.Cut(out, " ")
		if !strings.Contains(string(read(t, at(".mf"))), "SHA256(demo-1.0.0"+ending+")= "+digest+"\n") {
			t.Errorf("openssl says %s, the manifest %s", out, read(t, at(".mf")))
		}
	}
	signed, certificate, _ := strings.Cut(string(read(t, at(".cert"))), "\n")
	var signature []byte
	if m := lineRE.FindStringSubmatch(signed); m != nil {
		var err error
		if signature, err = hex.DecodeString(m[2]); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string][]byte{"cert.pem": []byte(certificate), "signature": signature} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	foreign.MustRun(t, "openssl", "x509", "-in", filepath.Join(dir, "cert.pem"), "-pubkey", "-noout", "-out", filepath.Join(dir, "key.pem"))
	if out := foreign.MustRun(t, "openssl", "dgst", "-sha256", "-verify", filepath.Join(dir, "key.pem"), "-signature", filepath.Join(dir, "signature"), at(".mf")); !strings.Contains(out, "Verified OK") {
		t.Errorf("openssl: %s", out)
	}
}
