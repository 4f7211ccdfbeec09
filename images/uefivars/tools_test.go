// SPDX-License-Identifier: Apache-2.0

//go:build engine

package uefivars

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/internal/foreign"
)

// python runs a Python program of the tools tree.
func python(t *testing.T, program string, args ...string) string {
	t.Helper()
	tree := foreign.Tree(t)
	t.Setenv("PYTHONHOME", filepath.Join(tree, "usr"))
	t.Setenv("PYTHONDONTWRITEBYTECODE", "1")
	path := filepath.Join(tree, "usr/bin", program)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the tools tree has no %s: add python3-virt-firmware to it", program)
	}
	return foreign.MustRun(t, "python3", append([]string{path}, args...)...)
}

func write(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// dump is what virt-fw-vars writes with --output-json.
type dump struct {
	Variables []struct {
		Name, GUID, Data string
		Attr             uint32
	}
}

func full(t *testing.T) (KeySet, []Variable) {
	t.Helper()
	k := FromCertificate(goldenCert(t))
	k.DB = append(k.DB, pairs()[0].cert)
	k.KEK = append(k.KEK, pairs()[1].cert)
	k.DBX = []Revocations{revoked(t)}
	vars, err := k.Variables()
	if err != nil {
		t.Fatal(err)
	}
	return k, vars
}

// TestVirtFirmwareReadsOurs: the same variables, and byte for byte the same
// lists, in the tool Red Hat's firmware packages are made with.
func TestVirtFirmwareReadsOurs(t *testing.T) {
	dir := t.TempDir()
	k, vars := full(t)
	text, err := k.AWS()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.json")
	in := write(t, filepath.Join(dir, "uefi-data"), []byte(text))
	said := python(t, "virt-fw-vars", "--input", in, "--output-json", out, "--print", "--verbose")
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	var got dump
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Variables) != len(vars) {
		t.Fatalf("it sees %d variables, there are %d\n%s", len(got.Variables), len(vars), said)
	}
	for _, w := range vars {
		for _, v := range got.Variables {
			if v.Name == w.Name && (v.GUID != w.Vendor.String() || v.Attr != w.Attributes || v.Data != hex.EncodeToString(w.Data)) {
				t.Errorf("%s is another: %s, %x", w.Name, v.GUID, v.Attr)
			}
		}
		if !strings.Contains(said, w.Name) {
			t.Errorf("it does not print %s:\n%s", w.Name, said)
		}
	}
	if !strings.Contains(said, "golden signing certificate") {
		t.Errorf("it does not print the certificate's name:\n%s", said)
	}
}

// TestWeReadVirtFirmware: an AWS store it made from our certificate.
func TestWeReadVirtFirmware(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "uefi-data")
	vars := filepath.Join(foreign.Tree(t), "usr/share/OVMF/OVMF_VARS_4M.fd")
	cert, err := filepath.Abs("testdata/signing.crt")
	if err != nil {
		t.Fatal(err)
	}
	owner := Owner.String()
	python(t, "virt-fw-vars", "--input", vars, "--set-pk", owner, cert, "--add-kek", owner, cert, "--add-db", owner, cert, "--output-aws", out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeAWS(string(b))
	if err != nil {
		t.Fatal(err)
	}
	want, err := FromCertificate(goldenCert(t)).Variables()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		found := false
		for _, v := range got {
			if v.Name != w.Name {
				continue
			}
			found = true
			if v.Vendor != w.Vendor || v.Attributes != w.Attributes || !bytes.Equal(v.Data, w.Data) {
				t.Errorf("%s: %d bytes for %d, attributes %#x", v.Name, len(v.Data), len(w.Data), v.Attributes)
			}
		}
		if !found {
			t.Errorf("its store has no %s", w.Name)
		}
	}
}

// TestVirtFirmwareReadsLists: our .esl through its reader of signature lists.
func TestVirtFirmwareReadsLists(t *testing.T) {
	_, vars := full(t)
	for _, v := range vars {
		in := write(t, filepath.Join(t.TempDir(), v.Name+".esl"), v.Data)
		said := python(t, "virt-fw-sigdb", "--input", in, "--print")
		want := "EfiCertX509 count=1"
		if v.Name == "dbx" {
			want = "EfiCertSha256 count=2"
		}
		if !strings.Contains(said, want) {
			t.Errorf("%s: it says\n%s", v.Name, said)
		}
	}
	// sbsiglist makes the very same list.
	dir := t.TempDir()
	der := write(t, filepath.Join(dir, "cert.der"), goldenCert(t).Raw)
	out := filepath.Join(dir, "theirs.esl")
	foreign.MustRun(t, "sbsiglist", "--owner", Owner.String(), "--type", "x509", "--output", out, der)
	theirs, err := os.ReadFile(out)
	if err != nil || !bytes.Equal(theirs, vars[0].Data) {
		t.Errorf("sbsiglist makes another list of the certificate (%v)", err)
	}
}

// TestOpenSSLAcceptsAuth: the signature in our .auth, over what UEFI says it
// covers.
func TestOpenSSLAcceptsAuth(t *testing.T) {
	a, other := pairs()[0], pairs()[1]
	vars, err := FromCertificate(a.cert).Variables()
	if err != nil {
		t.Fatal(err)
	}
	asPEM := func(dir string, c *x509.Certificate) string {
		return write(t, filepath.Join(dir, c.Subject.CommonName+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	for _, v := range vars {
		dir := t.TempDir()
		signed, err := v.Auth(a.key, a.cert, at)
		if err != nil {
			t.Fatal(err)
		}
		stamp, err := efiTime(at)
		if err != nil {
			t.Fatal(err)
		}
		n := len(signed) - len(v.Data)
		inside := signed[timeSize+winCertHeader : n]
		// OpenSSL wants the outer wrapping that UEFI leaves out.
		outer := wrap(t, inside)
		sig := write(t, filepath.Join(dir, "sig.der"), outer)
		content := write(t, filepath.Join(dir, "content"), v.signedBytes(stamp))
		verify := func(content, ca string) (string, int) {
			return foreign.Run(t, "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", sig, "-content", content, "-out", filepath.Join(dir, "out"), "-purpose", "any", "-no_check_time", "-CAfile", ca)
		}
		if said, code := verify(content, asPEM(dir, a.cert)); code != 0 {
			t.Errorf("%s: openssl refuses it: %s", v.Name, said)
		}
		if _, code := verify(content, asPEM(dir, other.cert)); code == 0 {
			t.Errorf("%s: openssl takes it as another's", v.Name)
		}
		changed := write(t, filepath.Join(dir, "changed"), append(v.signedBytes(stamp), 0))
		if _, code := verify(changed, asPEM(dir, a.cert)); code == 0 {
			t.Errorf("%s: openssl takes changed content", v.Name)
		}
	}
}

// wrap makes a ContentInfo of a SignedData.
func wrap(t *testing.T, inside []byte) []byte {
	t.Helper()
	b, err := asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{
		asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2},
		asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inside},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
