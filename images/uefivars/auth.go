// SPDX-License-Identifier: Apache-2.0

package uefivars

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"
	"unicode/utf16"

	"github.com/holdfast/holdfast/images/gpt"
)

const (
	timeSize = 16
	// winCertHeader is WIN_CERTIFICATE_UEFI_GUID before its content.
	winCertHeader   = 24
	winCertRevision = 0x0200
	winCertGUID     = 0x0ef1 // WIN_CERT_TYPE_EFI_GUID
)

// typePKCS7 is EFI_CERT_TYPE_PKCS7_GUID.
var typePKCS7 = gpt.MustGUID("4aafd29d-68df-49ee-8aa9-347d375665a7")

var (
	oidData   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidRSA    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

// The types below are PKCS#7 1.5 (RFC 2315), detached and without attributes.
type algorithm struct {
	Algorithm  asn1.ObjectIdentifier
	Parameters asn1.RawValue
}

type signedData struct {
	Version          int
	DigestAlgorithms []algorithm `asn1:"set"`
	Content          struct{ Type asn1.ObjectIdentifier }
	Certificates     asn1.RawValue
	Signers          []signerInfo `asn1:"set"`
}

type signerInfo struct {
	Version int
	ID      struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	DigestAlgorithm, EncryptionAlgorithm algorithm
	EncryptedDigest                      []byte
}

// Auth is the content of an .auth file: the variable with a signature over it
// by the key of cert (EFI_VARIABLE_AUTHENTICATION_2, UEFI 2.10, 8.2.2). In
// setup mode firmware takes a PK signed by itself, a KEK signed by PK, and db
// and dbx signed by PK or a KEK. Firmware refuses one that is not later than
// the variable it has, so at is what orders updates; it counts in seconds.
func (v Variable) Auth(key crypto.Signer, cert *x509.Certificate, at time.Time) ([]byte, error) {
	pub, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || !pub.Equal(key.Public()) {
		return nil, errors.New("the certificate does not belong to the key, or is not RSA")
	}
	stamp, err := efiTime(at)
	if err != nil {
		return nil, err
	}
	signed := sha256.Sum256(v.signedBytes(stamp))
	sig, err := key.Sign(rand.Reader, signed[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", v.Name, err)
	}
	der, err := detached(sig, cert)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b := append([]byte(nil), stamp[:]...)
	b = le.AppendUint32(b, uint32(winCertHeader+len(der)))
	b = le.AppendUint16(b, winCertRevision)
	b = le.AppendUint16(b, winCertGUID)
	kind := onDisk(typePKCS7)
	b = append(b, kind[:]...)
	b = append(b, der...)
	return append(b, v.Data...), nil
}

// signedBytes is what the signature of an update covers (UEFI 2.10, 8.2.2,
// step 2): name without its end mark, vendor, attributes, time, content.
func (v Variable) signedBytes(stamp [timeSize]byte) []byte {
	le := binary.LittleEndian
	var b []byte
	for _, u := range utf16.Encode([]rune(v.Name)) {
		b = le.AppendUint16(b, u)
	}
	vendor := onDisk(v.Vendor)
	b = append(b, vendor[:]...)
	b = le.AppendUint32(b, v.Attributes)
	b = append(b, stamp[:]...)
	return append(b, v.Data...)
}

// detached is the SignedData alone, as UEFI wants it, not wrapped in ContentInfo.
func detached(sig []byte, cert *x509.Certificate) ([]byte, error) {
	null := asn1.RawValue{Tag: asn1.TagNull}
	sd := signedData{
		Version:          1,
		DigestAlgorithms: []algorithm{{oidSHA256, null}},
		Certificates:     asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: cert.Raw},
	}
	sd.Content.Type = oidData
	s := signerInfo{Version: 1, DigestAlgorithm: algorithm{oidSHA256, null}, EncryptionAlgorithm: algorithm{oidRSA, null}, EncryptedDigest: sig}
	s.ID.Issuer, s.ID.Serial = asn1.RawValue{FullBytes: cert.RawIssuer}, cert.SerialNumber
	sd.Signers = []signerInfo{s}
	return asn1.Marshal(sd)
}

// efiTime is EFI_TIME in UTC without fractions of a second, as 8.2.2 wants it.
func efiTime(at time.Time) (b [timeSize]byte, err error) {
	at = at.UTC()
	if y := at.Year(); y < 1900 || y > 9999 {
		return b, fmt.Errorf("the year %d is out of UEFI's range, 1900 to 9999", y)
	}
	binary.LittleEndian.PutUint16(b[:], uint16(at.Year()))
	b[2], b[3] = byte(at.Month()), byte(at.Day())
	b[4], b[5], b[6] = byte(at.Hour()), byte(at.Minute()), byte(at.Second())
	return b, nil
}

// ParseRevocations reads a dbx file: signature lists, or a signed variable
// that holds them. The signature of the latter is not checked: what is in a
// key set is the vendor's word.
func ParseRevocations(file []byte) (Revocations, error) {
	if len(file) > maxVariable {
		return Revocations{}, fmt.Errorf("a dbx file of %d bytes is larger than firmware takes, %d", len(file), maxVariable)
	}
	lists, err := ParseLists(file)
	if err != nil {
		payload, ok := stripAuth(file)
		if !ok {
			return Revocations{}, fmt.Errorf("not a dbx file: %w", err)
		}
		if lists, err = ParseLists(payload); err != nil {
			return Revocations{}, fmt.Errorf("not a dbx file: in the signed variable, %w", err)
		}
	}
	if len(lists) == 0 {
		return Revocations{}, errors.New("the dbx file is empty: leave it out")
	}
	return Revocations{File: file, Lists: lists}, nil
}

// stripAuth is what a signed variable holds.
func stripAuth(b []byte) (payload []byte, ok bool) {
	if len(b) < timeSize+winCertHeader {
		return nil, false
	}
	cert := b[timeSize:]
	le := binary.LittleEndian
	n := int64(le.Uint32(cert))
	if n < winCertHeader || n > int64(len(cert)) || le.Uint16(cert[6:]) != winCertGUID || onDisk(gpt.GUID(cert[8:24])) != typePKCS7 {
		return nil, false
	}
	return cert[n:], true
}
