// SPDX-License-Identifier: Apache-2.0

// Package uefivars turns one Secure Boot key set (PK, KEK, db, dbx) into what
// each place takes: EFI signature lists and signed variables for firmware, file
// buffers for Google's image API, and a variable store (UefiData) for Amazon's.
// The same key set gives the same bytes. It makes no keys, and it refuses a set
// that firmware would refuse or that would lock out its own disk.
//
// Format: UEFI 2.10, chapters 8.2 (variables) and 32.4 (signature database).
package uefivars

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/holdfast/holdfast/images/gpt"
	"github.com/holdfast/holdfast/images/layout"
)

const (
	// maxVariable bounds one variable in bytes: OVMF's largest for signed
	// variables is 33 KiB (PcdMaxAuthVariableSize), with its header.
	maxVariable = 32 << 10
	// maxEntries bounds the certificates or files of one database.
	maxEntries = 64
	// minBits is what UEFI firmware must take; firmware often stops at maxBits.
	minBits = 2048
	maxBits = 4096
)

// Attributes of a variable (UEFI 2.10, 8.2.1).
const (
	attrNonVolatile = 0x01
	attrBoot        = 0x02
	attrRuntime     = 0x04
	attrTimeAuth    = 0x20
	// keyAttributes are those of the four key variables (UEFI 2.10, 3.3).
	keyAttributes = attrNonVolatile | attrBoot | attrRuntime | attrTimeAuth
)

// Vendor GUIDs of the key variables, and types of signatures in them.
var (
	// GlobalVariable is EFI_GLOBAL_VARIABLE: PK and KEK.
	GlobalVariable = gpt.MustGUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
	// SecurityDatabase is EFI_IMAGE_SECURITY_DATABASE_GUID: db and dbx.
	SecurityDatabase = gpt.MustGUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
	// TypeX509 is EFI_CERT_X509_GUID.
	TypeX509 = gpt.MustGUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
	// TypeSHA256 is EFI_CERT_SHA256_GUID.
	TypeSHA256 = gpt.MustGUID("c1c41626-504c-4092-aca9-41f936934328")
)

// Owner marks our entries in a signature list. Firmware shows it and goes by
// nothing of it; a constant keeps the bytes the same and our entries findable.
var Owner = layout.DeriveGUID(sha256.Sum256([]byte("holdfast")), "secure boot signature owner")

// KeySet is what firmware goes by when it checks what it starts.
type KeySet struct {
	// PK may replace KEK and itself; there is one.
	PK *x509.Certificate
	// KEK may sign changes of db and dbx.
	KEK []*x509.Certificate
	// DB may sign programs that start.
	DB []*x509.Certificate
	// DBX is what may not start; empty for none.
	DBX []Revocations
}

// Revocations is one dbx file.
type Revocations struct {
	// File is the file as it was given: signature lists, or a signed variable
	// that holds them, as the UEFI Forum publishes it.
	File []byte
	// Lists are the signature lists in it.
	Lists []List
}

// FromCertificate is the key set of a disk that is signed with the key of
// cert: cert is PK, KEK and db, and nothing is revoked.
func FromCertificate(cert *x509.Certificate) KeySet {
	one := []*x509.Certificate{cert}
	return KeySet{PK: cert, KEK: one, DB: one}
}

// Check refuses what firmware would not take.
func (k KeySet) Check() error {
	if k.PK == nil {
		return errors.New("the key set has no platform key (PK), and without one Secure Boot stays off")
	}
	if len(k.DB) == 0 {
		return errors.New("the key set has an empty db, so no program could start")
	}
	if len(k.KEK) == 0 {
		return errors.New("the key set has no key exchange key (KEK), so db and dbx could never be changed: name one, PK's certificate will do")
	}
	if n := max(len(k.KEK), len(k.DB), len(k.DBX)); n > maxEntries {
		return fmt.Errorf("the key set has a database of %d entries, more than %d", n, maxEntries)
	}
	for _, certs := range [][]*x509.Certificate{{k.PK}, k.KEK, k.DB} {
		for _, c := range certs {
			if err := checkCertificate(c); err != nil {
				return err
			}
		}
	}
	for _, v := range k.variables() {
		if len(v.Data) > maxVariable {
			return fmt.Errorf("%s has %d bytes, firmware takes %d: leave some entries out", v.Name, len(v.Data), maxVariable)
		}
	}
	return nil
}

// CheckSigner refuses a key set under which a disk signed with the key of cert
// would not start. Of dbx it sees certificates, not hashes of programs.
func (k KeySet) CheckSigner(cert *x509.Certificate) error {
	for _, r := range k.DBX {
		for _, l := range r.Lists {
			for _, e := range l.Entries {
				if l.Type == TypeX509 && string(e.Data) == string(cert.Raw) {
					return fmt.Errorf("dbx forbids the certificate %q that signed this disk: bake it with another key", cert.Subject.CommonName)
				}
			}
		}
	}
	for _, c := range k.DB {
		if c.Equal(cert) || cert.CheckSignatureFrom(c) == nil {
			return nil
		}
	}
	return fmt.Errorf("db does not hold the certificate %q that signed this disk, so it would not start: add signing.crt of the bake to db", cert.Subject.CommonName)
}

func checkCertificate(c *x509.Certificate) error {
	pub, ok := c.PublicKey.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("the certificate %q is not for an RSA key, which Secure Boot needs", c.Subject.CommonName)
	}
	if n := pub.N.BitLen(); n < minBits || n > maxBits {
		return fmt.Errorf("the certificate %q is for RSA of %d bits: firmware takes %d to %d", c.Subject.CommonName, n, minBits, maxBits)
	}
	return nil
}

// Variable is a UEFI variable.
type Variable struct {
	// Name such as "PK"; it and Vendor are the variable's identity.
	Name   string
	Vendor gpt.GUID
	// Attributes are UEFI's bits (8.2.1).
	Attributes uint32
	Data       []byte
	// Time is EFI_TIME of a variable with time-based authentication, 16 bytes
	// as in the store: zero accepts any later update.
	Time [16]byte
	// Digest is what a store keeps of the signer of a private variable; keys
	// have none.
	Digest []byte
}

// Variables are PK, KEK, db and, when it is not empty, dbx, with signature
// lists (.esl) as their data.
func (k KeySet) Variables() ([]Variable, error) {
	if err := k.Check(); err != nil {
		return nil, err
	}
	return k.variables(), nil
}

func (k KeySet) variables() []Variable {
	vars := []Variable{
		keyVariable("PK", GlobalVariable, certificateLists(k.PK)),
		keyVariable("KEK", GlobalVariable, certificateLists(k.KEK...)),
		keyVariable("db", SecurityDatabase, certificateLists(k.DB...)),
	}
	var revoked []List
	for _, r := range k.DBX {
		revoked = append(revoked, r.Lists...)
	}
	if len(revoked) > 0 {
		vars = append(vars, keyVariable("dbx", SecurityDatabase, revoked))
	}
	return vars
}

func keyVariable(name string, vendor gpt.GUID, lists []List) Variable {
	return Variable{Name: name, Vendor: vendor, Attributes: keyAttributes, Data: EncodeLists(lists)}
}

// onDisk is a GUID with its first three fields little-endian, as UEFI stores
// it; the function is its own inverse.
func onDisk(g gpt.GUID) gpt.GUID {
	g[0], g[1], g[2], g[3] = g[3], g[2], g[1], g[0]
	g[4], g[5] = g[5], g[4]
	g[6], g[7] = g[7], g[6]
	return g
}
