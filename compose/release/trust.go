// SPDX-License-Identifier: Apache-2.0

package release

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
)

// maxTrust bounds one file of certificates.
const maxTrust = 1 << 20

// ErrSignature is a release manifest that no trusted key has signed.
var ErrSignature = errors.New("the release's signature is by no trusted key")

// LoadTrust reads the certificates of all PEM files that match glob, in order
// of names. It refuses an empty set: nothing could be verified.
func LoadTrust(fsys fs.FS, glob string) ([]*x509.Certificate, error) {
	names, err := fs.Glob(fsys, glob)
	if err != nil {
		return nil, fmt.Errorf("trust: %s: %w", glob, err)
	}
	var out []*x509.Certificate
	for _, name := range names {
		data, err := readBounded(fsys, name, maxTrust)
		if err != nil {
			return nil, fmt.Errorf("trust: %w", err)
		}
		n := 0
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "CERTIFICATE" {
				return nil, fmt.Errorf("trust: %s: holds a %s; only certificates belong there", name, block.Type)
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("trust: %s: %w", name, err)
			}
			if k, ok := c.PublicKey.(*rsa.PublicKey); !ok || k.N.BitLen() < minKey {
				return nil, fmt.Errorf("trust: %s: %s has no RSA key of at least %d bits", name, c.Subject, minKey)
			}
			out, n = append(out, c), n+1
		}
		if n == 0 {
			return nil, fmt.Errorf("trust: %s: holds no certificate", name)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("trust: no certificate matches %s", glob)
	}
	return out, nil
}

// verify checks the signature over the manifest's bytes. Validity periods of
// certificates are not looked at: an installed release is never judged by
// expiry, or a box with a dead clock battery would not start.
func verify(manifest, sig []byte, trust []*x509.Certificate) error {
	sum := sha256.Sum256(manifest)
	for _, c := range trust {
		key, ok := c.PublicKey.(*rsa.PublicKey)
		if ok && key.N.BitLen() >= minKey && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) == nil {
			return nil
		}
	}
	return ErrSignature
}
