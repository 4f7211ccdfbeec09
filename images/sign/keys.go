// SPDX-License-Identifier: Apache-2.0

// Package sign loads and makes the vendor's signing pair and signs EFI programs
// for Secure Boot, the same bytes for the same inputs. It takes RSA keys of at
// least 2048 bits in PEM files, and refuses a private key that others on the
// host may read. Time comes in from outside.
package sign

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"time"

	"github.com/holdfast/holdfast/images/durable"
)

const (
	// minBits and maxBits bound the keys: 2048 is what UEFI firmware must take,
	// OVMF's crypto library stops at 16384 but shipped firmware often at 4096.
	minBits = 2048
	maxBits = 4096
	// newBits is NIST's 128-bit strength, wanted for a key that lives decades.
	newBits = 3072
	// validYears is long because a certificate in a firmware's db outlives any
	// renewal, and firmware does not look at dates anyway.
	validYears = 25
	// maxPEM bounds a key or certificate file in bytes.
	maxPEM = 1 << 20
)

// LoadPair reads a private key (PKCS#1 or PKCS#8) and its certificate.
func LoadPair(keyPath, certPath string) (crypto.Signer, *x509.Certificate, error) {
	keyPEM, err := readSmall(keyPath, true)
	if err != nil {
		return nil, nil, err
	}
	certPEM, err := readSmall(certPath, false)
	if err != nil {
		return nil, nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("signing key %s: %w", keyPath, err)
	}
	cert, err := parseCert(certPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("signing certificate %s: %w", certPath, err)
	}
	if pub, ok := cert.PublicKey.(*rsa.PublicKey); !ok || !pub.Equal(key.Public()) {
		return nil, nil, fmt.Errorf("signing certificate %s does not belong to the key %s: give the pair that was made together", certPath, keyPath)
	}
	return key, cert, nil
}

func readSmall(path string, secret bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if secret && st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("signing key %s can be read by others (mode %04o): run chmod 600 %s", path, st.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxPEM {
		return nil, fmt.Errorf("%s is larger than 1 MiB: not a PEM key or certificate", path)
	}
	return b, nil
}

func parseKey(b []byte) (*rsa.PrivateKey, error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errors.New("is encrypted: decrypt it first with openssl rsa")
			}
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("is encrypted: decrypt it first with openssl pkey")
		case "EC PRIVATE KEY", "OPENSSH PRIVATE KEY":
			return nil, fmt.Errorf("is an %s: Secure Boot needs RSA", block.Type)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("does not parse: %w", err)
		}
		k, ok := key.(*rsa.PrivateKey)
		if !ok {
			return nil, errors.New("is not RSA, which Secure Boot needs")
		}
		return k, checkBits(&k.PublicKey)
	}
	return nil, errors.New("holds no PEM private key")
}

func checkBits(pub *rsa.PublicKey) error {
	if n := pub.N.BitLen(); n < minBits || n > maxBits {
		return fmt.Errorf("is RSA of %d bits: firmware takes %d to %d", n, minBits, maxBits)
	}
	return nil
}

func parseCert(b []byte) (*x509.Certificate, error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("does not parse: %w", err)
		}
		pub, ok := cert.PublicKey.(*rsa.PublicKey)
		if !ok {
			return nil, errors.New("is not for an RSA key, which Secure Boot needs")
		}
		return cert, checkBits(pub)
	}
	return nil, errors.New("holds no PEM certificate")
}

// MakePair makes a self-signed pair for code signing: RSA of 3072 bits, valid 25
// years from the day before now (clocks differ), with a serial number from the
// key. It never overwrites: the error is fs.ErrExist when either file is there.
// The certificate is written last, so a pair is whole once it exists. There is
// no source of randomness to pass in because Go ignores one for RSA keys since
// 1.26.
func MakePair(keyPath, certPath, name string, now time.Time) error {
	for _, p := range []string{keyPath, certPath} {
		if _, err := os.Lstat(p); err == nil {
			return &fs.PathError{Op: "make signing pair", Path: p, Err: fs.ErrExist}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	key, cert, err := newPair(name, now)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if err := durable.WriteNew(keyPath, keyPEM, 0o600); err != nil {
		return err
	}
	return durable.WriteNew(certPath, certPEM, 0o644)
}

func newPair(name string, now time.Time) (*rsa.PrivateKey, *x509.Certificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, newBits)
	if err != nil {
		return nil, nil, err
	}
	id := sha256.Sum256(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	from := now.UTC().Truncate(24*time.Hour).AddDate(0, 0, -1)
	tmpl := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(append([]byte{0x01}, id[:15]...)),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             from,
		NotAfter:              from.AddDate(validYears, 0, 1),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true,
		SubjectKeyId:          id[:20],
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return key, cert, err
}
