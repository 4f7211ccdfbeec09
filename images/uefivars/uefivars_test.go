// SPDX-License-Identifier: Apache-2.0

package uefivars

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foxboron/go-uefi/efi/signature"
	"github.com/foxboron/go-uefi/pkcs7"
)

var update = flag.Bool("update", false, "write the golden files anew")

// at is the time of every signature here.
var at = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

// golden certificate: its key is gone, the bytes of its encodings must stay.
func goldenCert(t testing.TB) *x509.Certificate {
	t.Helper()
	certs, err := readCertificates("testdata/signing.crt")
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

type pair struct {
	key  crypto.Signer
	cert *x509.Certificate
}

var pairs = sync.OnceValue(func() []pair {
	var out []pair
	for i, bits := range []int{2048, 2048} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		out = append(out, pair{key, certFor(key, string(rune('a'+i)))})
	}
	return out
})

func certFor(key *rsa.PrivateKey, name string) *x509.Certificate {
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: at, NotAfter: at.AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

// revoked is a dbx of two hashes.
func revoked(t testing.TB) Revocations {
	t.Helper()
	r, err := ParseRevocations(EncodeLists([]List{{Type: TypeSHA256, Entries: []Entry{{Owner, bytes.Repeat([]byte{1}, 32)}, {Owner, bytes.Repeat([]byte{2}, 32)}}}}))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestGoldens holds the bytes of each encoding; after a change that is meant,
// run it with -update.
func TestGoldens(t *testing.T) {
	k := FromCertificate(goldenCert(t))
	k.DBX = []Revocations{revoked(t)}
	vars, err := k.Variables()
	if err != nil {
		t.Fatal(err)
	}
	gce, err := k.GCE()
	if err != nil {
		t.Fatal(err)
	}
	gceJSON, err := json.MarshalIndent(gce, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	aws, err := k.AWS()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]byte{"gce.json.golden": append(gceJSON, '\n'), "aws.golden": []byte(aws + "\n")}
	for _, v := range vars {
		got[v.Name+".esl.hex.golden"] = []byte(hex.Dump(v.Data))
	}
	for name, b := range got {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s differs (%v): run go test -update if that is meant", name, err)
		}
	}
	if Owner.String() != "03849488-746e-88a7-bacf-dad3ab351738" {
		t.Errorf("the owner is %s now: entries of boxes in the field are no longer known as ours", Owner)
	}
}

func TestRoundTrip(t *testing.T) {
	k := FromCertificate(goldenCert(t))
	k.DBX = []Revocations{revoked(t)}
	vars, err := k.Variables()
	if err != nil {
		t.Fatal(err)
	}
	text, err := EncodeAWS(vars)
	if err != nil {
		t.Fatal(err)
	}
	again, err := EncodeAWS(vars)
	if err != nil || again != text {
		t.Errorf("made twice, it differs (%v)", err)
	}
	got, err := DecodeAWS(text)
	if err != nil || len(got) != len(vars) {
		t.Fatalf("%d variables, %v", len(got), err)
	}
	for i, v := range got {
		w := vars[i]
		if v.Name != w.Name || v.Vendor != w.Vendor || v.Attributes != 0x27 || v.Time != w.Time || v.Digest != nil || !bytes.Equal(v.Data, w.Data) {
			t.Errorf("%s came back as %+v", w.Name, v)
		}
		lists, err := ParseLists(v.Data)
		if err != nil || !bytes.Equal(EncodeLists(lists), v.Data) {
			t.Errorf("%s: lists do not come back: %v", v.Name, err)
		}
	}
}

// TestAuth holds the signed variable against go-uefi's reader, which does
// not check signatures without attributes itself.
func TestAuth(t *testing.T) {
	a, b := pairs()[0], pairs()[1]
	vars, err := FromCertificate(a.cert).Variables()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vars {
		signed, err := v.Auth(a.key, a.cert, at)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := v.Auth(a.key, a.cert, at.In(time.FixedZone("x", 3600))); err != nil || !bytes.Equal(signed, again) {
			t.Errorf("%s signed twice differs (%v)", v.Name, err)
		}
		r := bytes.NewReader(signed)
		head, err := signature.ReadEFIVariableAuthencation2(r)
		if err != nil {
			t.Fatal(err)
		}
		p, err := pkcs7.ParsePKCS7(head.AuthInfo.CertData)
		if err != nil {
			t.Fatal(err)
		}
		stamp, err := efiTime(at)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.SignerInfo) != 1 || !p.HasCertificate(a.cert) || p.HasCertificate(b.cert) || len(p.Certs) != 1 {
			t.Errorf("%s: go-uefi sees other signers", v.Name)
		}
		sig := p.SignerInfo[0].EncryptedDigest
		if err := a.cert.CheckSignature(x509.SHA256WithRSA, v.signedBytes(stamp), sig); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		if payload, ok := stripAuth(signed); !ok || !bytes.Equal(payload, v.Data) {
			t.Errorf("%s: its lists do not come back", v.Name)
		}
	}
	if _, err := vars[0].Auth(a.key, b.cert, at); err == nil {
		t.Error("signed with a key that is not the certificate's")
	}
	if _, err := vars[0].Auth(a.key, a.cert, time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)); err == nil {
		t.Error("signed in the year 1")
	}
}

func TestRefuses(t *testing.T) {
	cert := goldenCert(t)
	other := pairs()[0].cert
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	certList := Revocations{Lists: certificateLists(cert)}
	big := Revocations{Lists: []List{{Type: TypeSHA256, Entries: make([]Entry, 0, 2000)}}}
	for range 2000 {
		big.Lists[0].Entries = append(big.Lists[0].Entries, Entry{Owner, make([]byte, 32)})
	}
	for _, c := range []struct {
		want string
		set  KeySet
	}{
		{"no platform key", KeySet{}},
		{"empty db", KeySet{PK: cert}},
		{"no key exchange key", KeySet{PK: cert, DB: []*x509.Certificate{cert}}},
		{"RSA of 1024 bits", FromCertificate(certFor(weak, "weak"))},
		{"leave some entries out", KeySet{PK: cert, KEK: []*x509.Certificate{cert}, DB: []*x509.Certificate{cert}, DBX: []Revocations{big}}},
		{"add signing.crt", FromCertificate(other)},
		{"dbx forbids", KeySet{PK: cert, KEK: []*x509.Certificate{cert}, DB: []*x509.Certificate{cert}, DBX: []Revocations{certList}}},
	} {
		err := c.set.Check()
		if err == nil {
			err = c.set.CheckSigner(cert)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, other := goldenCert(t), pairs()[0]
	asPEM := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	signing := write("signing.crt", asPEM(cert))
	der := write("other.cer", other.cert.Raw)
	both := write("both.pem", append(asPEM(cert), asPEM(other.cert)...))
	esl := write("dbx.esl", revoked(t).File)
	dbx := keyVariable("dbx", SecurityDatabase, revoked(t).Lists)
	signed, err := dbx.Auth(other.key, other.cert, at)
	if err != nil {
		t.Fatal(err)
	}
	k, err := Load(signing, Files{PK: der, KEK: []string{both}, DB: []string{both, der}, DBX: []string{esl, write("dbx.auth", signed)}})
	if err != nil {
		t.Fatal(err)
	}
	if !k.PK.Equal(other.cert) || len(k.KEK) != 2 || len(k.DB) != 3 || len(k.DBX) != 2 {
		t.Errorf("loaded %d KEK, %d db, %d dbx", len(k.KEK), len(k.DB), len(k.DBX))
	}
	gce, err := k.GCE()
	if err != nil || gce.DBXs[0].FileType != GCEBin || gce.PK.FileType != GCEX509 {
		t.Errorf("%+v, %v", gce, err)
	}
	if k, err := Load(signing, Files{}); err != nil || !k.PK.Equal(cert) || !k.DB[0].Equal(cert) || !k.KEK[0].Equal(cert) {
		t.Errorf("by default: %+v, %v", k, err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})
	for want, files := range map[string]Files{
		"one platform key":       {PK: both},
		"add signing.crt":        {DB: []string{der}},
		"not a dbx file":         {DBX: []string{signing}},
		"is empty: leave it out": {DBX: []string{write("empty", nil)}},
		"no certificate in PEM":  {KEK: []string{esl}},
		"a key set is public":    {KEK: []string{write("key.pem", key)}},
		"no such file":           {KEK: []string{dir + "/none"}},
		"larger than 1 MiB":      {KEK: []string{write("huge", make([]byte, maxFile+1))}},
		"larger than firmware":   {DBX: []string{write("long", make([]byte, maxVariable+1))}},
		"dbx forbids":            {DBX: []string{write("self.esl", EncodeLists(certificateLists(cert)))}},
	} {
		if _, err := Load(signing, files); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := FromCertificate(goldenCert(t)).AWS()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "not base64": "!", "other magic": "QUFBQUFBQUFBQUFBQUFBQQ==",
		"changed": good[:40] + "AAAA" + good[44:], "cut": good[:len(good)/8*4], "long": strings.Repeat("A", MaxAWS+1),
	} {
		if _, err := DecodeAWS(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDecodeAWS(f *testing.F) {
	good, err := FromCertificate(goldenCert(f)).AWS()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, text string) {
		if vars, err := DecodeAWS(text); err == nil {
			encodeAgain(t, vars)
		}
	})
}

// FuzzStore goes past checksum and compression.
func FuzzStore(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'x'})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if vars, err := parseStore(raw); err == nil && len(raw) < 8<<10 {
			encodeAgain(t, vars)
		}
	})
}

func encodeAgain(t *testing.T, vars []Variable) {
	t.Helper()
	text, err := EncodeAWS(vars)
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodeAWS(text)
	if err != nil || len(again) != len(vars) {
		t.Fatalf("%d variables became %d: %v", len(vars), len(again), err)
	}
}

func FuzzParseRevocations(f *testing.F) {
	f.Add(EncodeLists(certificateLists(goldenCert(f))))
	f.Add(revoked(f).File)
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRevocations(b); err == nil {
			out := EncodeLists(r.Lists)
			if !bytes.HasSuffix(b, out) {
				t.Fatal("lists do not come back as they were")
			}
		}
	})
}
