// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"sort"
	"time"
)

var (
	oidSignedData      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	oidRSA             = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidRSASHA256       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidSHA256          = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSpcIndirectData = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidSpcPEImageData  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
)

// The types below are PKCS#7 1.5 (RFC 2315) as Authenticode uses it, field by field.
type algorithm struct {
	Algorithm  asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"explicit,optional,tag:0"`
}

type signedDataType struct {
	Version          int
	DigestAlgorithms []algorithm `asn1:"set"`
	Content          contentInfo
	Certificates     asn1.RawValue `asn1:"optional,tag:0"`
	CRLs             asn1.RawValue `asn1:"optional,tag:1"`
	Signers          []signerInfo  `asn1:"set"`
}

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type signerInfo struct {
	Version           int
	ID                issuerAndSerial
	DigestAlgorithm   algorithm
	Attributes        asn1.RawValue `asn1:"optional,tag:0"`
	EncryptionAlg     algorithm
	EncryptedDigest   []byte
	UnsignedAttribute asn1.RawValue `asn1:"optional,tag:1"`
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values asn1.RawValue
}

type digestInfo struct {
	Algorithm algorithm
	Digest    []byte
}

type spcIndirectData struct {
	Data struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	Digest digestInfo
}

// spcPEImageData is the constant every signer writes: no flags, and a file link
// to the string "<<<Obsolete>>>" in UTF-16.
var spcPEImageData = func() []byte {
	b := []byte{0x30, 0x25, 0x03, 0x01, 0x00, 0xa0, 0x20, 0xa2, 0x1e, 0x80, 0x1c}
	for _, c := range "<<<Obsolete>>>" {
		b = append(b, 0, byte(c))
	}
	return b
}()

var (
	null      = asn1.RawValue{Tag: asn1.TagNull}
	sha256Alg = algorithm{oidSHA256, null}
)

// signedData makes the DER of a PKCS#7 ContentInfo that signs the digest of an
// EFI program.
func signedData(digest []byte, key crypto.Signer, cert *x509.Certificate, at time.Time) ([]byte, error) {
	var spc spcIndirectData
	spc.Data.Type = oidSpcPEImageData
	spc.Data.Value = asn1.RawValue{FullBytes: spcPEImageData}
	spc.Digest = digestInfo{sha256Alg, digest}
	content, err := asn1.Marshal(spc)
	if err != nil {
		return nil, err
	}
	// PKCS#7 1.5 hashes the content without its tag and length.
	var inner asn1.RawValue
	if _, err := asn1.Unmarshal(content, &inner); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(inner.Bytes)

	attrs, err := attributes(sum[:], at)
	if err != nil {
		return nil, err
	}
	// What is signed is the SET; what travels has the tag [0] instead.
	set, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: attrs})
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(set)
	sig, err := key.Sign(rand.Reader, hash[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	inside, err := asn1.Marshal(signedDataType{
		Version:          1,
		DigestAlgorithms: []algorithm{sha256Alg},
		Content:          contentInfo{oidSpcIndirectData, explicit(content)},
		Certificates:     asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: cert.Raw},
		Signers: []signerInfo{{
			Version:         1,
			ID:              issuerAndSerial{asn1.RawValue{FullBytes: cert.RawIssuer}, cert.SerialNumber},
			DigestAlgorithm: sha256Alg,
			Attributes:      asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: attrs},
			EncryptionAlg:   algorithm{oidRSA, null},
			EncryptedDigest: sig,
		}},
	})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{oidSignedData, explicit(inside)})
}

func explicit(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}
}

// attributes is the body of the signed attributes, sorted as DER wants.
func attributes(digest []byte, at time.Time) ([]byte, error) {
	var all [][]byte
	for _, a := range []struct {
		id    asn1.ObjectIdentifier
		value any
	}{{oidContentType, oidSpcIndirectData}, {oidSigningTime, at.UTC().Truncate(time.Second)}, {oidMessageDigest, digest}} {
		v, err := asn1.Marshal(a.value)
		if err != nil {
			return nil, fmt.Errorf("sign: attribute %s: %w", a.id, err)
		}
		der, err := asn1.Marshal(attribute{a.id, asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: v}})
		if err != nil {
			return nil, err
		}
		all = append(all, der)
	}
	sort.Slice(all, func(i, j int) bool { return bytes.Compare(all[i], all[j]) < 0 })
	return bytes.Join(all, nil), nil
}

// verifySignedData checks that der, which may be padded, signs digest with the
// key of cert.
func verifySignedData(der, digest []byte, cert *x509.Certificate) error {
	pub, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return errors.New("sign: the certificate is not RSA")
	}
	var outer contentInfo
	if _, err := asn1.Unmarshal(der, &outer); err != nil || !outer.Type.Equal(oidSignedData) {
		return errors.New("sign: the signature is not PKCS#7 signed data")
	}
	var sd signedDataType
	if _, err := asn1.Unmarshal(outer.Content.Bytes, &sd); err != nil {
		return fmt.Errorf("sign: the signature does not parse: %w", err)
	}
	if !sd.Content.Type.Equal(oidSpcIndirectData) {
		return errors.New("sign: the signature is over something other than an EFI program")
	}
	var spc spcIndirectData
	if rest, err := asn1.Unmarshal(sd.Content.Content.Bytes, &spc); err != nil || len(rest) != 0 {
		return errors.New("sign: the signed content does not parse")
	}
	if !spc.Digest.Algorithm.Algorithm.Equal(oidSHA256) || !bytes.Equal(spc.Digest.Digest, digest) {
		return errors.New("sign: the program is not what was signed: its hash differs")
	}
	var inner asn1.RawValue
	if _, err := asn1.Unmarshal(sd.Content.Content.Bytes, &inner); err != nil {
		return err
	}
	sum := sha256.Sum256(inner.Bytes)
	err := errors.New("sign: the signature has no signer")
	for _, s := range sd.Signers {
		if err = verifySigner(s, sum[:], pub, cert); err == nil {
			return nil
		}
	}
	return err
}

func verifySigner(s signerInfo, contentSum []byte, pub *rsa.PublicKey, cert *x509.Certificate) error {
	if !bytes.Equal(s.ID.Issuer.FullBytes, cert.RawIssuer) || s.ID.Serial == nil || s.ID.Serial.Cmp(cert.SerialNumber) != 0 {
		return errors.New("sign: the program is signed by another certificate")
	}
	if !s.DigestAlgorithm.Algorithm.Equal(oidSHA256) ||
		!s.EncryptionAlg.Algorithm.Equal(oidRSA) && !s.EncryptionAlg.Algorithm.Equal(oidRSASHA256) {
		return errors.New("sign: the signature is not RSA with SHA-256")
	}
	var typ, sum bool
	for rest := s.Attributes.Bytes; len(rest) > 0; {
		var a attribute
		var err error
		if rest, err = asn1.Unmarshal(rest, &a); err != nil {
			return fmt.Errorf("sign: the signed attributes do not parse: %w", err)
		}
		switch {
		case a.Type.Equal(oidContentType):
			var id asn1.ObjectIdentifier
			if _, err := asn1.Unmarshal(a.Values.Bytes, &id); err != nil || typ || !id.Equal(oidSpcIndirectData) {
				return errors.New("sign: the signed content type is wrong")
			}
			typ = true
		case a.Type.Equal(oidMessageDigest):
			var d []byte
			if _, err := asn1.Unmarshal(a.Values.Bytes, &d); err != nil || sum || !bytes.Equal(d, contentSum) {
				return errors.New("sign: the signed hash is not that of the content")
			}
			sum = true
		}
	}
	if !typ || !sum {
		return errors.New("sign: the signed attributes lack content type or hash")
	}
	set, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: s.Attributes.Bytes})
	if err != nil {
		return err
	}
	hash := sha256.Sum256(set)
	if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, hash[:], s.EncryptedDigest); err != nil {
		return errors.New("sign: the signature was not made by the certificate's key")
	}
	return nil
}
