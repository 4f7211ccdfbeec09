// SPDX-License-Identifier: Apache-2.0

package uefivars

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxFile bounds a certificate or dbx file in bytes.
const maxFile = 1 << 20

// Files name what differs from the key set of the signing certificate alone;
// each may be empty. Certificates are PEM or DER, a PEM file of KEK or DB may
// hold several.
type Files struct {
	PK           string
	KEK, DB, DBX []string
}

// Load reads the key set of a disk: the bake's certificate (signing.crt) as PK,
// KEK and db where files names no other. A set under which the disk would not
// start is refused.
func Load(signing string, files Files) (KeySet, error) {
	certs, err := readCertificates(signing)
	if err != nil {
		return KeySet{}, err
	}
	k := FromCertificate(certs[0])
	if files.PK != "" {
		pk, err := readCertificates(files.PK)
		if err != nil {
			return KeySet{}, err
		}
		if len(pk) != 1 {
			return KeySet{}, fmt.Errorf("%s holds %d certificates, and there is one platform key", files.PK, len(pk))
		}
		k.PK = pk[0]
	}
	for _, db := range []struct {
		to    *[]*x509.Certificate
		files []string
	}{{&k.KEK, files.KEK}, {&k.DB, files.DB}} {
		if len(db.files) > 0 {
			*db.to = nil
		}
		for _, name := range db.files {
			more, err := readCertificates(name)
			if err != nil {
				return KeySet{}, err
			}
			*db.to = append(*db.to, more...)
		}
	}
	for _, name := range files.DBX {
		b, err := readSmall(name)
		if err != nil {
			return KeySet{}, err
		}
		r, err := ParseRevocations(b)
		if err != nil {
			return KeySet{}, fmt.Errorf("%s: %w", name, err)
		}
		k.DBX = append(k.DBX, r)
	}
	if err := k.Check(); err != nil {
		return KeySet{}, err
	}
	return k, k.CheckSigner(certs[0])
}

// ParseCertificates reads one certificate in DER, or all of a PEM file.
func ParseCertificates(b []byte) ([]*x509.Certificate, error) {
	if c, err := x509.ParseCertificate(b); err == nil {
		return []*x509.Certificate{c}, nil
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s besides certificates: a key set is public, leave it out", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate does not parse: %w", err)
		}
		if certs = append(certs, c); len(certs) > maxEntries {
			return nil, fmt.Errorf("more than %d certificates", maxEntries)
		}
	}
	if len(certs) == 0 {
		return nil, errors.New("holds no certificate in PEM or DER")
	}
	return certs, nil
}

func readCertificates(name string) ([]*x509.Certificate, error) {
	b, err := readSmall(name)
	if err != nil {
		return nil, err
	}
	certs, err := ParseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return certs, nil
}

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is larger than 1 MiB: not a certificate or dbx file", name)
	}
	return b, nil
}
