// SPDX-License-Identifier: Apache-2.0

// Package tuf is the part of go-tuf v2 that compose/trust uses: metadata of the
// four top-level roles, signatures of ed25519 keys, and the order in which a
// client takes metadata over. Other types of go-tuf are not to be seen from
// outside, so that what a box depends on is in one place.
package tuf

import (
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// signedAt is the field that holds the time of signing. TUF has none, and a
// box without a clock learns from it that this time has passed.
const signedAt = "x-holdfast-signed"

type (
	Metadata[T metadata.Roles] = metadata.Metadata[T]

	Roles         = metadata.Roles
	RootType      = metadata.RootType
	SnapshotType  = metadata.SnapshotType
	TimestampType = metadata.TimestampType
	TargetsType   = metadata.TargetsType
	TargetFiles   = metadata.TargetFiles
	MetaFiles     = metadata.MetaFiles
	Hashes        = metadata.Hashes
	Key           = metadata.Key
	Signature     = metadata.Signature

	ErrUnsignedMetadata     = metadata.ErrUnsignedMetadata
	ErrBadVersionNumber     = metadata.ErrBadVersionNumber
	ErrEqualVersionNumber   = metadata.ErrEqualVersionNumber
	ErrLengthOrHashMismatch = metadata.ErrLengthOrHashMismatch

	Trusted = trustedmetadata.TrustedMetadata
)

func Root(expires ...time.Time) *Metadata[RootType]           { return metadata.Root(expires...) }
func Snapshot(expires ...time.Time) *Metadata[SnapshotType]   { return metadata.Snapshot(expires...) }
func Timestamp(expires ...time.Time) *Metadata[TimestampType] { return metadata.Timestamp(expires...) }
func Targets(expires ...time.Time) *Metadata[TargetsType]     { return metadata.Targets(expires...) }

// NewTrusted starts from a root that is trusted as it is.
func NewTrusted(root []byte) (*Trusted, error) { return trustedmetadata.New(root) }

// Ed25519Key is a public key as metadata lists it.
func Ed25519Key(hexKey string) *Key {
	return &Key{Type: metadata.KeyTypeEd25519, Scheme: metadata.KeySchemeEd25519, Value: metadata.KeyVal{PublicKey: hexKey}}
}

// Payload is what is signed: the canonical JSON of a Signed part.
func Payload(signed any) ([]byte, error) { return cjson.EncodeCanonical(signed) }

// SetSignedAt and SignedAt keep a time in metadata, under its signature.
func SetSignedAt[T Roles](m *Metadata[T], at string) {
	if f := fields(m); f != nil {
		if *f == nil {
			*f = map[string]any{}
		}
		(*f)[signedAt] = at
	}
}

func SignedAt[T Roles](m *Metadata[T]) string {
	if f := fields(m); f != nil {
		at, _ := (*f)[signedAt].(string)
		return at
	}
	return ""
}

func fields[T Roles](m *Metadata[T]) *map[string]any {
	switch s := any(&m.Signed).(type) {
	case *RootType:
		return &s.UnrecognizedFields
	case *SnapshotType:
		return &s.UnrecognizedFields
	case *TimestampType:
		return &s.UnrecognizedFields
	case *TargetsType:
		return &s.UnrecognizedFields
	}
	return nil
}
