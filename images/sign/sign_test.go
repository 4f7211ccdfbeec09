// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foxboron/go-uefi/authenticode"

	"github.com/holdfast/holdfast/images/internal/efitest"
	"github.com/holdfast/holdfast/images/pe"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)

type pair struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// pairs are two signing pairs, made once because RSA keys take their time.
var pairs = sync.OnceValues(func() ([2]pair, error) {
	var out [2]pair
	for i := range out {
		key, cert, err := newPair("Holdfast test", now)
		if err != nil {
			return out, err
		}
		out[i] = pair{key, cert}
	}
	return out, nil
})

func testPairs(t testing.TB) (a, b pair) {
	t.Helper()
	p, err := pairs()
	if err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

func program() []byte { return efitest.UKI("kernel", "initrd", "root=x") }

func signed(t testing.TB, p pair) []byte {
	t.Helper()
	out, err := Authenticode(program(), p.key, p.cert, now)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The same inputs give the same bytes, and signing what is signed replaces the
// signature.
func TestSameBytes(t *testing.T) {
	a, b := testPairs(t)
	once := signed(t, a)
	for name, in := range map[string][]byte{"unsigned": program(), "signed": once, "signed by another": signed(t, b)} {
		again, err := Authenticode(in, a.key, a.cert, now.In(time.FixedZone("", 3600)))
		if err != nil || !bytes.Equal(again, once) {
			t.Errorf("%s: signing again differs (%v)", name, err)
		}
	}
	later, err := Authenticode(program(), a.key, a.cert, now.Add(time.Second))
	if err != nil || bytes.Equal(later, once) {
		t.Errorf("the signing time is not in the signature (%v)", err)
	}
	if in := program(); !bytes.Equal(in, program()) {
		t.Error("the input was changed")
	}
}

// What UEFI asks of the certificate table: at the end, aligned, lengths that add
// up, padding inside the entry.
func TestTable(t *testing.T) {
	a, _ := testPairs(t)
	out := signed(t, a)
	f, err := pe.Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	if f.CertAt%8 != 0 || f.CertSize%8 != 0 || f.CertAt+f.CertSize != int64(len(out)) {
		t.Errorf("table at %d of %d in %d bytes", f.CertAt, f.CertSize, len(out))
	}
	if n := binary.LittleEndian.Uint32(out[f.CertAt:]); int64(n) != f.CertSize {
		t.Errorf("entry of %d in a table of %d", n, f.CertSize)
	}
	// A program whose length is not aligned gets hashed padding.
	odd := append(program(), "tail"...)
	out, err = Authenticode(odd, a.key, a.cert, now)
	if err != nil {
		t.Fatal(err)
	}
	if f, err = pe.Parse(out); err != nil || f.CertAt != int64(len(odd)+4) {
		t.Errorf("table at %d after %d bytes, %v", f.CertAt, len(odd), err)
	}
}

// A library that shares no code with this one takes the signature.
func TestOtherLibraryAgrees(t *testing.T) {
	a, b := testPairs(t)
	p, err := authenticode.Parse(bytes.NewReader(signed(t, a)))
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := p.Verify(a.cert); !ok || err != nil {
		t.Errorf("go-uefi: %v, %v", ok, err)
	}
	if ok, _ := p.Verify(b.cert); ok {
		t.Error("go-uefi takes another certificate")
	}
	// And the other way round.
	p, err = authenticode.Parse(bytes.NewReader(program()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Sign(a.key, a.cert); err != nil {
		t.Fatal(err)
	}
	if err := VerifyAuthenticode(p.Bytes(), a.cert); err != nil {
		t.Errorf("signed by go-uefi: %v", err)
	}
}

// Every byte counts but the checksum and the padding after the signature.
func TestFlippedByteFails(t *testing.T) {
	a, _ := testPairs(t)
	out := signed(t, a)
	f, err := pe.Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	tail := 0
	for i := len(out) - 1; out[i] == 0; i-- {
		tail++
	}
	// Each byte of the headers in use, and one in 13 of the rest.
	for i := 0; i < len(out)-tail; i++ {
		if i > 700 && i%13 != 0 {
			continue
		}
		if int64(i) >= f.ChecksumAt && int64(i) < f.ChecksumAt+4 {
			continue
		}
		out[i] ^= 0x01
		err := VerifyAuthenticode(out, a.cert)
		out[i] ^= 0x01
		// The certificate that travels inside is not believed, so its bytes do
		// not matter; nor do the algorithm names outside the signed part.
		if err == nil && int64(i) < f.CertAt {
			t.Fatalf("a flipped byte at %d of %d passes", i, len(out))
		}
	}
	if err := VerifyAuthenticode(out, a.cert); err != nil {
		t.Fatal(err)
	}
}

func TestRefuses(t *testing.T) {
	a, b := testPairs(t)
	if _, err := Authenticode(program(), a.key, b.cert, now); err == nil || !strings.Contains(err.Error(), "does not belong to the key") {
		t.Errorf("certificate of another key: %v", err)
	}
	if err := VerifyAuthenticode(signed(t, a), b.cert); err == nil || !strings.Contains(err.Error(), "another certificate") {
		t.Errorf("another certificate: %v", err)
	}
	if err := VerifyAuthenticode(program(), a.cert); err == nil || !strings.Contains(err.Error(), "not signed") {
		t.Errorf("unsigned: %v", err)
	}
	if _, err := Authenticode(append(signed(t, a), 0), a.key, a.cert, now); err == nil || !strings.Contains(err.Error(), "after its certificate table") {
		t.Errorf("bytes after the table: %v", err)
	}
	// A gap between sections is hashed by some and not by others.
	gap := program()
	const firstSection = 64 + 24 + 112 + 8*16
	binary.LittleEndian.PutUint32(gap[firstSection+16:], 0)
	if _, err := Authenticode(gap, a.key, a.cert, now); err == nil || !strings.Contains(err.Error(), "belong to no section") {
		t.Errorf("gap: %v", err)
	}
}

// Of several signatures one good one is enough, as for the firmware.
func TestSeveralSignatures(t *testing.T) {
	a, b := testPairs(t)
	one, two := signed(t, a), signed(t, b)
	f, err := pe.Parse(one)
	if err != nil {
		t.Fatal(err)
	}
	both := append(bytes.Clone(one), two[f.CertAt:]...)
	binary.LittleEndian.PutUint32(both[f.CertDirAt+4:], uint32(int64(len(both))-f.CertAt))
	for _, p := range []pair{a, b} {
		if err := VerifyAuthenticode(both, p.cert); err != nil {
			t.Error(err)
		}
	}
	binary.LittleEndian.PutUint32(both[f.CertAt:], 4)
	if err := VerifyAuthenticode(both, a.cert); err == nil || !strings.Contains(err.Error(), "entry of 4 bytes") {
		t.Errorf("an entry shorter than its header: %v", err)
	}
}

func TestPairRoundTrip(t *testing.T) {
	dir := t.TempDir()
	keyPath, certPath := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	if err := MakePair(keyPath, certPath, "Holdfast demo", now); err != nil {
		t.Fatal(err)
	}
	key, cert, err := LoadPair(keyPath, certPath)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != "Holdfast demo" || cert.NotAfter.Before(now.AddDate(20, 0, 0)) || cert.NotBefore.After(now) {
		t.Errorf("certificate of %s from %v to %v", cert.Subject, cert.NotBefore, cert.NotAfter)
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		t.Errorf("not self-signed: %v", err)
	}
	out, err := Authenticode(program(), key, cert, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyAuthenticode(out, cert); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	a, _ := testPairs(f)
	good := signed(f, a)
	parsed, err := pe.Parse(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[parsed.CertAt:])
	f.Add(good[parsed.CertAt:][:100])
	f.Fuzz(func(t *testing.T, table []byte) {
		if len(table) == 0 || len(table) > 1<<16 {
			return
		}
		b := append(bytes.Clone(good[:parsed.CertAt]), table...)
		binary.LittleEndian.PutUint32(b[parsed.CertDirAt+4:], uint32(len(table)))
		// Whatever the table, a program that was not signed must not pass.
		b[parsed.HeaderSize] ^= 1
		if err := VerifyAuthenticode(b, a.cert); err == nil {
			t.Fatal("a changed program passes")
		}
	})
}
