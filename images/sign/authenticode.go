// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast/holdfast/images/pe"
)

const (
	certHeader = 8 // WIN_CERTIFICATE before its content
	// certAlign is what each certificate and the table itself must be aligned to.
	certAlign = 8
	// winCertPKCS is WIN_CERT_TYPE_PKCS_SIGNED_DATA; winCertRevision its only revision.
	winCertPKCS     = 0x0002
	winCertRevision = 0x0200
	// maxCert bounds a signature that is read; a real one has 2 to 20 KiB.
	maxCert = 1 << 20
)

// Authenticode returns pe with a Secure Boot signature by key, replacing any
// it had. The signature is RSA PKCS#1 v1.5 over SHA-256 with the signing time
// at, so the same inputs give the same bytes. cert travels inside. It refuses
// a program with bytes between sections, which verifiers hash in different ways.
//
// Format: Microsoft "Windows Authenticode Portable Executable Signature
// Format" and UEFI 2.10 section 32.2.4.
func Authenticode(program []byte, key crypto.Signer, cert *x509.Certificate, at time.Time) ([]byte, error) {
	pub, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || !pub.Equal(key.Public()) {
		return nil, errors.New("sign: the certificate does not belong to the key, or is not RSA")
	}
	f, err := pe.Parse(program)
	if err != nil {
		return nil, err
	}
	body := program
	if f.CertAt != 0 {
		if f.CertAt+f.CertSize != int64(len(program)) {
			return nil, errors.New("sign: the program has bytes after its certificate table")
		}
		body = program[:f.CertAt]
	}
	out := make([]byte, len(body), len(body)+certAlign+8<<10)
	copy(out, body)
	// The padding before the table is part of what is hashed.
	out = append(out, make([]byte, pad(len(out)))...)
	binary.LittleEndian.PutUint64(out[f.CertDirAt:], 0)

	digest, err := imageDigest(out)
	if err != nil {
		return nil, err
	}
	sig, err := signedData(digest, key, cert, at)
	if err != nil {
		return nil, err
	}
	// The length counts the padding too: OVMF wants the lengths of the
	// certificates to add up to the length of the table exactly.
	sig = append(sig, make([]byte, pad(certHeader+len(sig)))...)
	le := binary.LittleEndian
	at32 := len(out)
	out = le.AppendUint32(out, uint32(certHeader+len(sig)))
	out = le.AppendUint16(out, winCertRevision)
	out = le.AppendUint16(out, winCertPKCS)
	out = append(out, sig...)
	le.PutUint32(out[f.CertDirAt:], uint32(at32))
	le.PutUint32(out[f.CertDirAt+4:], uint32(certHeader+len(sig)))
	le.PutUint32(out[f.ChecksumAt:], checksum(out, f.ChecksumAt))
	return out, VerifyAuthenticode(out, cert)
}

// VerifyAuthenticode tells whether program holds a signature of its present bytes by
// the key of cert. Like the firmware it accepts any one of several
// signatures, and it does not judge the certificate's dates, which firmware
// does not either.
func VerifyAuthenticode(program []byte, cert *x509.Certificate) error {
	f, err := pe.Parse(program)
	if err != nil {
		return err
	}
	if f.CertAt == 0 {
		return errors.New("sign: the program is not signed")
	}
	digest, err := imageDigest(program)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	err = errors.New("sign: the certificate table is empty")
	for table := program[f.CertAt:][:f.CertSize]; len(table) > 0; {
		if len(table) < certHeader {
			return errors.New("sign: the certificate table is cut off")
		}
		n := int(le.Uint32(table))
		if n < certHeader || n > len(table) || n > maxCert {
			return fmt.Errorf("sign: the certificate table has an entry of %d bytes", n)
		}
		if le.Uint16(table[4:]) == winCertRevision && le.Uint16(table[6:]) == winCertPKCS {
			if err = verifySignedData(table[certHeader:n], digest, cert); err == nil {
				return nil
			}
		}
		table = table[min(len(table), n+pad(n)):]
	}
	return err
}

// imageDigest is the Authenticode hash: all bytes but the checksum, the
// directory entry of the certificate table, and the table itself. The firmware
// goes by headers and sections; this goes by the file, so both must cover the
// same bytes.
func imageDigest(b []byte) ([]byte, error) {
	f, err := pe.Parse(b)
	if err != nil {
		return nil, err
	}
	end := f.HeaderSize
	for _, s := range f.InFileOrder() {
		if s.Offset != end {
			return nil, fmt.Errorf("sign: %d bytes before section %q belong to no section", s.Offset-end, s.Name)
		}
		end = s.Offset + s.Size
	}
	stop := int64(len(b))
	if f.CertAt != 0 {
		if f.CertAt%certAlign != 0 || f.CertAt+f.CertSize != stop {
			return nil, errors.New("sign: the certificate table is not aligned to 8 bytes at the end of the file")
		}
		stop = f.CertAt
	}
	h := sha256.New()
	h.Write(b[:f.ChecksumAt])
	h.Write(b[f.ChecksumAt+4 : f.CertDirAt])
	h.Write(b[f.CertDirAt+8 : stop])
	return h.Sum(nil), nil
}

// checksum is that of IMAGEHLP: the 16-bit sum with carry of all words but the
// checksum itself, plus the length.
func checksum(b []byte, at int64) uint32 {
	var sum uint64
	for i := 0; i < len(b); i += 2 {
		if int64(i) == at || int64(i) == at+2 {
			continue
		}
		w := uint64(b[i])
		if i+1 < len(b) {
			w |= uint64(b[i+1]) << 8
		}
		sum += w
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint32(sum) + uint32(len(b))
}

func pad(n int) int { return -n & (certAlign - 1) }
