// SPDX-License-Identifier: Apache-2.0

//go:build !gotuf

package tuf

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Backend is what is behind this package.
const Backend = "standard library"

const specification = "1.0.31"

// Roles are the types of the signed part of metadata. Fields are in the order
// of their names: equal content makes equal bytes.
type Roles interface {
	RootType | SnapshotType | TimestampType | TargetsType
}

type Metadata[T Roles] struct {
	Signatures []Signature `json:"signatures"`
	Signed     T           `json:"signed"`
}

type Signature struct {
	KeyID     string   `json:"keyid"`
	Signature HexBytes `json:"sig"`
}

type RootType struct {
	Type               string           `json:"_type"`
	ConsistentSnapshot bool             `json:"consistent_snapshot"`
	Expires            time.Time        `json:"expires"`
	Keys               map[string]*Key  `json:"keys"`
	Roles              map[string]*Role `json:"roles"`
	SpecVersion        string           `json:"spec_version"`
	Version            int64            `json:"version"`
	At                 string           `json:"x-holdfast-signed,omitempty"`
}

type SnapshotType struct {
	Type        string                `json:"_type"`
	Expires     time.Time             `json:"expires"`
	Meta        map[string]*MetaFiles `json:"meta"`
	SpecVersion string                `json:"spec_version"`
	Version     int64                 `json:"version"`
	At          string                `json:"x-holdfast-signed,omitempty"`
}

type TimestampType SnapshotType

type TargetsType struct {
	Type        string                  `json:"_type"`
	Expires     time.Time               `json:"expires"`
	SpecVersion string                  `json:"spec_version"`
	Targets     map[string]*TargetFiles `json:"targets"`
	Version     int64                   `json:"version"`
	At          string                  `json:"x-holdfast-signed,omitempty"`
}

type Key struct {
	Type   string `json:"keytype"`
	Value  KeyVal `json:"keyval"`
	Scheme string `json:"scheme"`
}

type KeyVal struct {
	PublicKey string `json:"public"`
}

type Role struct {
	KeyIDs    []string `json:"keyids"`
	Threshold int      `json:"threshold"`
}

type MetaFiles struct {
	Hashes  Hashes `json:"hashes,omitempty"`
	Length  int64  `json:"length,omitempty"`
	Version int64  `json:"version"`
}

type TargetFiles struct {
	Custom *json.RawMessage `json:"custom,omitempty"`
	Hashes Hashes           `json:"hashes"`
	Length int64            `json:"length"`
}

type Hashes map[string]HexBytes

type HexBytes []byte

func (b HexBytes) MarshalJSON() ([]byte, error) { return json.Marshal(hex.EncodeToString(b)) }

func (b *HexBytes) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	var err error
	*b, err = hex.DecodeString(s)
	return err
}

func Root(expires ...time.Time) *Metadata[RootType] {
	m := &Metadata[RootType]{Signatures: []Signature{}, Signed: RootType{
		Type: "root", SpecVersion: specification, Version: 1, ConsistentSnapshot: true,
		Keys: map[string]*Key{}, Roles: map[string]*Role{},
	}}
	for _, r := range []string{"root", "snapshot", "targets", "timestamp"} {
		m.Signed.Roles[r] = &Role{KeyIDs: []string{}, Threshold: 1}
	}
	m.Signed.Expires = first(expires)
	return m
}

func Snapshot(expires ...time.Time) *Metadata[SnapshotType] {
	return &Metadata[SnapshotType]{Signatures: []Signature{}, Signed: SnapshotType{
		Type: "snapshot", SpecVersion: specification, Version: 1, Expires: first(expires),
		Meta: map[string]*MetaFiles{"targets.json": {Version: 1}},
	}}
}

func Timestamp(expires ...time.Time) *Metadata[TimestampType] {
	return &Metadata[TimestampType]{Signatures: []Signature{}, Signed: TimestampType{
		Type: "timestamp", SpecVersion: specification, Version: 1, Expires: first(expires),
		Meta: map[string]*MetaFiles{"snapshot.json": {Version: 1}},
	}}
}

func Targets(expires ...time.Time) *Metadata[TargetsType] {
	return &Metadata[TargetsType]{Signatures: []Signature{}, Signed: TargetsType{
		Type: "targets", SpecVersion: specification, Version: 1, Expires: first(expires),
		Targets: map[string]*TargetFiles{},
	}}
}

func first(expires []time.Time) time.Time {
	if len(expires) == 0 {
		return time.Now().UTC()
	}
	return expires[0]
}

// FromBytes reads metadata of the receiver's role.
func (m *Metadata[T]) FromBytes(data []byte) (*Metadata[T], error) {
	var read Metadata[T]
	if err := json.Unmarshal(data, &read); err != nil {
		return nil, err
	}
	var want, got string
	switch s := any(&read.Signed).(type) {
	case *RootType:
		want, got = "root", s.Type
	case *SnapshotType:
		want, got = "snapshot", s.Type
	case *TimestampType:
		want, got = "timestamp", s.Type
	case *TargetsType:
		want, got = "targets", s.Type
		for name, t := range s.Targets {
			if t == nil || len(t.Hashes) == 0 {
				return nil, fmt.Errorf("the target %s has no hash", name)
			}
		}
	}
	if got != want {
		return nil, fmt.Errorf("it is metadata of type %q, not %q", got, want)
	}
	for i, s := range read.Signatures {
		if slices.ContainsFunc(read.Signatures[:i], func(o Signature) bool { return o.KeyID == s.KeyID }) {
			return nil, fmt.Errorf("the key %s signed twice", s.KeyID)
		}
	}
	*m = read
	return m, nil
}

// ToBytes is the metadata as JSON.
func (m *Metadata[T]) ToBytes(pretty bool) ([]byte, error) {
	if pretty {
		return json.MarshalIndent(m, "", "\t")
	}
	return json.Marshal(m)
}

// VerifyDelegate checks that other, metadata of a role, is signed by the
// threshold of keys that the receiver, a root, gives the role.
func (m *Metadata[T]) VerifyDelegate(role string, other any) error {
	root, ok := any(&m.Signed).(*RootType)
	if !ok {
		return fmt.Errorf("only a root says who signs %s", role)
	}
	r := root.Roles[role]
	if r == nil || len(r.KeyIDs) == 0 || r.Threshold < 1 {
		return fmt.Errorf("the root gives %s no keys", role)
	}
	var signatures []Signature
	var payload []byte
	var err error
	switch o := other.(type) {
	case *Metadata[RootType]:
		signatures = o.Signatures
		payload, err = Payload(o.Signed)
	case *Metadata[SnapshotType]:
		signatures = o.Signatures
		payload, err = Payload(o.Signed)
	case *Metadata[TimestampType]:
		signatures = o.Signatures
		payload, err = Payload(o.Signed)
	case *Metadata[TargetsType]:
		signatures = o.Signatures
		payload, err = Payload(o.Signed)
	default:
		err = fmt.Errorf("%T is no metadata", other)
	}
	if err != nil {
		return err
	}
	good := map[string]bool{} // by key, not by id: one key counts once
	for _, id := range r.KeyIDs {
		key := root.Keys[id]
		if key == nil {
			return fmt.Errorf("the root does not have the key %s of %s", id, role)
		}
		public, err := hex.DecodeString(key.Value.PublicKey)
		if err != nil || key.Type != "ed25519" || len(public) != ed25519.PublicKeySize {
			return fmt.Errorf("the key %s is not of ed25519", id)
		}
		for _, s := range signatures {
			if s.KeyID == id && ed25519.Verify(public, payload, s.Signature) {
				good[string(public)] = true
			}
		}
	}
	if len(good) < r.Threshold {
		return &ErrUnsignedMetadata{fmt.Sprintf("%d signatures, want %d", len(good), r.Threshold)}
	}
	return nil
}

// AddKey gives a role a key.
func (r *RootType) AddKey(key *Key, role string) error {
	id, err := key.ID()
	if err != nil {
		return err
	}
	if r.Roles[role] == nil {
		return fmt.Errorf("there is no role %q", role)
	}
	if !slices.Contains(r.Roles[role].KeyIDs, id) {
		r.Roles[role].KeyIDs = append(r.Roles[role].KeyIDs, id)
	}
	r.Keys[id] = key
	return nil
}

// RevokeKey takes a key from a role, and out of the root with its last role.
func (r *RootType) RevokeKey(id, role string) error {
	if r.Roles[role] == nil || !slices.Contains(r.Roles[role].KeyIDs, id) {
		return fmt.Errorf("the key %s is none of %s", id, role)
	}
	r.Roles[role].KeyIDs = slices.DeleteFunc(slices.Clone(r.Roles[role].KeyIDs), func(k string) bool { return k == id })
	for _, other := range r.Roles {
		if slices.Contains(other.KeyIDs, id) {
			return nil
		}
	}
	delete(r.Keys, id)
	return nil
}

// ID is the SHA-256 of the key's canonical JSON.
func (k *Key) ID() (string, error) {
	data, err := Payload(k)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// VerifyLengthHashes checks bytes against what metadata says of them.
func (f *MetaFiles) VerifyLengthHashes(data []byte) error {
	sum := sha256.Sum256(data)
	for name, want := range f.Hashes {
		if name != "sha256" || !bytes.Equal(want, sum[:]) {
			return &ErrLengthOrHashMismatch{"another " + name}
		}
	}
	if f.Length != 0 && f.Length != int64(len(data)) {
		return &ErrLengthOrHashMismatch{fmt.Sprintf("%d bytes, want %d", len(data), f.Length)}
	}
	return nil
}

// Ed25519Key is a public key as metadata lists it.
func Ed25519Key(hexKey string) *Key {
	return &Key{Type: "ed25519", Scheme: "ed25519", Value: KeyVal{PublicKey: hexKey}}
}

// SetSignedAt and SignedAt keep a time in metadata, under its signature.
func SetSignedAt[T Roles](m *Metadata[T], at string) { *atOf(m) = at }
func SignedAt[T Roles](m *Metadata[T]) string        { return *atOf(m) }

func atOf[T Roles](m *Metadata[T]) *string {
	switch s := any(&m.Signed).(type) {
	case *RootType:
		return &s.At
	case *SnapshotType:
		return &s.At
	case *TimestampType:
		return &s.At
	case *TargetsType:
		return &s.At
	}
	return new(string)
}
