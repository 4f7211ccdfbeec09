// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// Role names.
const (
	RoleRoot      = "root"
	RoleTargets   = "targets"
	RoleSnapshot  = "snapshot"
	RoleTimestamp = "timestamp"
)

// Roles in the order in which they trust each other.
func Roles() []string { return []string{RoleRoot, RoleTargets, RoleSnapshot, RoleTimestamp} }

// What any metadata may have at most, before a signature is looked at.
const (
	maxDepth      = 12
	maxTokens     = 150_000 // some 3,000 releases
	maxVersion    = 1 << 31
	maxKeys       = 64
	maxSignatures = 64
)

// parse reads metadata that came from outside: bounded, and in its one form.
func parse[T tuf.Roles](file string, data []byte, limit int, empty *tuf.Metadata[T]) (*tuf.Metadata[T], error) {
	damaged := func(why any) error {
		return refuse(ErrDamaged, file, fmt.Sprintf("%s is damaged (%v): fetch it again from a good copy", file, why))
	}
	if len(data) > limit {
		return nil, tooLarge(file, int64(limit))
	}
	if err := shape(data); err != nil {
		return nil, damaged(err)
	}
	m, err := empty.FromBytes(data)
	if err != nil {
		return nil, damaged(err)
	}
	again, err := m.ToBytes(false)
	if err != nil {
		return nil, damaged(err)
	}
	if !bytes.Equal(again, data) {
		return nil, damaged("it is not in the form that it was signed in")
	}
	if len(m.Signatures) == 0 || len(m.Signatures) > maxSignatures {
		return nil, damaged(fmt.Sprintf("it has %d signatures", len(m.Signatures)))
	}
	version, expires := head(m)
	if version < 1 || version > maxVersion {
		return nil, damaged(fmt.Sprintf("its version is %d", version))
	}
	if expires.IsZero() {
		return nil, damaged("it has no time of expiry")
	}
	if err := complete(m); err != nil {
		return nil, damaged(err)
	}
	return m, nil
}

// shape bounds what decoding may cost, and refuses null: no metadata has it,
// and decoders disagree on what it means.
func shape(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	depth := 0
	for n := 0; ; n++ {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n >= maxTokens {
			return fmt.Errorf("it has more than %d values", maxTokens)
		}
		switch t {
		case nil:
			return errors.New("it has a null")
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxDepth {
				return fmt.Errorf("it is nested deeper than %d", maxDepth)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
}

// complete checks what the library takes for granted.
func complete[T tuf.Roles](m *tuf.Metadata[T]) error {
	switch s := any(&m.Signed).(type) {
	case *tuf.RootType:
		return completeRoot(s)
	case *tuf.TimestampType:
		return named(s.Meta, "snapshot.json")
	case *tuf.SnapshotType:
		return named(s.Meta, "targets.json")
	}
	return nil
}

func completeRoot(s *tuf.RootType) error {
	if !s.ConsistentSnapshot {
		return errors.New("its files have no versions in their names")
	}
	if len(s.Keys) > maxKeys || len(s.Roles) != len(Roles()) {
		return fmt.Errorf("it has %d keys and %d roles", len(s.Keys), len(s.Roles))
	}
	for id, k := range s.Keys {
		if b, err := hex.DecodeString(k.Value.PublicKey); err != nil || len(b) != ed25519.PublicKeySize || k.Type != "ed25519" || k.Scheme != "ed25519" {
			return fmt.Errorf("the key %s is not of ed25519", short(id))
		}
		if own, err := k.ID(); err != nil || own != id {
			return fmt.Errorf("the key %s is listed under another's name", short(id))
		}
	}
	for _, role := range Roles() {
		r := s.Roles[role]
		if r == nil || r.Threshold < 1 || r.Threshold > len(r.KeyIDs) {
			return fmt.Errorf("the role %s cannot be met by its keys", role)
		}
		for i, id := range r.KeyIDs {
			if s.Keys[id] == nil || slices.Contains(r.KeyIDs[:i], id) {
				return fmt.Errorf("the role %s names the key %s twice, or one that is not there", role, short(id))
			}
		}
	}
	return nil
}

// named checks that metadata says version, length and hash of just one file.
func named(files map[string]*tuf.MetaFiles, name string) error {
	f := files[name]
	if f == nil || len(files) != 1 || f.Version < 1 || f.Version > maxVersion || f.Length < 1 || len(f.Hashes["sha256"]) != 32 || len(f.Hashes) != 1 {
		return fmt.Errorf("it does not name %s by version, length and SHA-256", name)
	}
	return nil
}

// head is what all metadata has.
func head[T tuf.Roles](m *tuf.Metadata[T]) (version int64, expires time.Time) {
	switch s := any(&m.Signed).(type) {
	case *tuf.RootType:
		return s.Version, s.Expires
	case *tuf.SnapshotType:
		return s.Version, s.Expires
	case *tuf.TimestampType:
		return s.Version, s.Expires
	case *tuf.TargetsType:
		return s.Version, s.Expires
	}
	return 0, time.Time{}
}

// verify checks that a root's keys of a role signed metadata, and that no
// signature is there for nothing: but for a root, whose signatures by the
// root before count too (others).
func verify[T tuf.Roles](root *tuf.Metadata[tuf.RootType], role, file string, m *tuf.Metadata[T], others ...*tuf.Metadata[tuf.RootType]) error {
	payload, err := tuf.Payload(m.Signed)
	if err != nil {
		return refuse(ErrDamaged, file, fmt.Sprintf("%s is damaged (%v): fetch it again from a good copy", file, err))
	}
	r := root.Signed.Roles[role]
	good := 0
	var strangers []string
	for _, s := range m.Signatures {
		key, counts := root.Signed.Keys[s.KeyID], slices.Contains(r.KeyIDs, s.KeyID)
		for _, o := range others {
			if k := o.Signed.Keys[s.KeyID]; !counts && k != nil && slices.Contains(o.Signed.Roles[role].KeyIDs, s.KeyID) {
				key = k
			}
		}
		known := counts || slices.ContainsFunc(others, func(o *tuf.Metadata[tuf.RootType]) bool {
			return slices.Contains(o.Signed.Roles[role].KeyIDs, s.KeyID)
		})
		if !known {
			strangers = append(strangers, short(s.KeyID))
			continue
		}
		if !validSignature(key, payload, s.Signature) {
			return refuse(ErrSignature, file, fmt.Sprintf("the signature of the key %s on %s is not right: the file was changed; fetch it again from a good copy", short(s.KeyID), file))
		}
		if counts {
			good++
		}
	}
	switch {
	case len(strangers) > 0:
		return refuse(ErrUnknownKey, file, fmt.Sprintf("%s is signed with the key %s, which this box does not trust for %s, or no longer does: ask the vendor for the release's right source", file, strings.Join(strangers, ", "), role))
	case good < r.Threshold:
		return refuse(ErrSignature, file, fmt.Sprintf("%s has %d of the %d signatures that %s needs: ask the vendor to have it signed", file, good, r.Threshold, role))
	}
	return nil
}

func validSignature(key *tuf.Key, payload, sig []byte) bool {
	if key == nil {
		return false
	}
	public, err := hex.DecodeString(key.Value.PublicKey)
	return err == nil && len(public) == ed25519.PublicKeySize && ed25519.Verify(public, payload, sig)
}

func tooLarge(file string, limit int64) error {
	return refuse(ErrTooLarge, file, fmt.Sprintf("%s has more than %d bytes, which no such file has: use another source", file, limit))
}

// short is how a key is shown.
func short(id string) string {
	if len(id) > 8 {
		return id[:8]
	}
	return id
}
