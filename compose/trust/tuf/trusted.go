// SPDX-License-Identifier: Apache-2.0

//go:build !gotuf

package tuf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

type ErrUnsignedMetadata struct{ Msg string }
type ErrBadVersionNumber struct{ Msg string }
type ErrEqualVersionNumber struct{ Msg string }
type ErrLengthOrHashMismatch struct{ Msg string }

func (e *ErrUnsignedMetadata) Error() string     { return e.Msg }
func (e *ErrBadVersionNumber) Error() string     { return e.Msg }
func (e *ErrEqualVersionNumber) Error() string   { return e.Msg }
func (e *ErrLengthOrHashMismatch) Error() string { return e.Msg }

// Trusted is metadata that was verified, taken over in the order of TUF's
// client workflow.
type Trusted struct {
	Root      *Metadata[RootType]
	Timestamp *Metadata[TimestampType]
	Snapshot  *Metadata[SnapshotType]
	Targets   map[string]*Metadata[TargetsType]
	// RefTime is what expiry is judged at.
	RefTime time.Time
}

// NewTrusted starts from a root that is trusted as it is.
func NewTrusted(root []byte) (*Trusted, error) {
	m, err := Root().FromBytes(root)
	if err != nil {
		return nil, err
	}
	if err := m.VerifyDelegate("root", m); err != nil {
		return nil, err
	}
	return &Trusted{Root: m, Targets: map[string]*Metadata[TargetsType]{}, RefTime: time.Now().UTC()}, nil
}

// UpdateRoot takes the next root: signed by the one before and by itself.
func (t *Trusted) UpdateRoot(data []byte) (*Metadata[RootType], error) {
	m, err := Root().FromBytes(data)
	if err != nil {
		return nil, err
	}
	if err := t.Root.VerifyDelegate("root", m); err != nil {
		return nil, err
	}
	if m.Signed.Version != t.Root.Signed.Version+1 {
		return nil, &ErrBadVersionNumber{fmt.Sprintf("root %d after %d", m.Signed.Version, t.Root.Signed.Version)}
	}
	if err := m.VerifyDelegate("root", m); err != nil {
		return nil, err
	}
	t.Root = m
	return m, nil
}

// UpdateTimestamp takes a timestamp that is newer than the one before.
func (t *Trusted) UpdateTimestamp(data []byte) (*Metadata[TimestampType], error) {
	m, err := Timestamp().FromBytes(data)
	if err != nil {
		return nil, err
	}
	if err := t.Root.VerifyDelegate("timestamp", m); err != nil {
		return nil, err
	}
	if m.Signed.Meta["snapshot.json"] == nil {
		return nil, errors.New("it names no snapshot")
	}
	if t.Timestamp != nil {
		switch now := t.Timestamp.Signed; {
		case m.Signed.Version < now.Version:
			return nil, &ErrBadVersionNumber{fmt.Sprintf("timestamp %d after %d", m.Signed.Version, now.Version)}
		case m.Signed.Version == now.Version:
			return nil, &ErrEqualVersionNumber{fmt.Sprintf("timestamp %d again", now.Version)}
		case m.Signed.Meta["snapshot.json"].Version < now.Meta["snapshot.json"].Version:
			return nil, &ErrBadVersionNumber{fmt.Sprintf("snapshot %d after %d", m.Signed.Meta["snapshot.json"].Version, now.Meta["snapshot.json"].Version)}
		}
	}
	t.Timestamp = m
	return m, nil
}

// UpdateSnapshot takes the snapshot that the timestamp names; a local one,
// verified before, may be older and then only keeps versions from going back.
func (t *Trusted) UpdateSnapshot(data []byte, local bool) (*Metadata[SnapshotType], error) {
	if t.Timestamp == nil {
		return nil, errors.New("there is no timestamp yet")
	}
	named := t.Timestamp.Signed.Meta["snapshot.json"]
	if !local {
		if err := named.VerifyLengthHashes(data); err != nil {
			return nil, err
		}
	}
	m, err := Snapshot().FromBytes(data)
	if err != nil {
		return nil, err
	}
	if err := t.Root.VerifyDelegate("snapshot", m); err != nil {
		return nil, err
	}
	for name, f := range m.Signed.Meta {
		if f == nil {
			return nil, fmt.Errorf("it says nothing of %s", name)
		}
	}
	if t.Snapshot != nil {
		for name, before := range t.Snapshot.Signed.Meta {
			now := m.Signed.Meta[name]
			if now == nil || now.Version < before.Version {
				return nil, &ErrBadVersionNumber{name + " is gone or older"}
			}
		}
	}
	t.Snapshot = m
	if m.Signed.Version != named.Version {
		return nil, &ErrBadVersionNumber{fmt.Sprintf("snapshot %d, want %d", m.Signed.Version, named.Version)}
	}
	return m, nil
}

// UpdateTargets takes the targets that the snapshot names.
func (t *Trusted) UpdateTargets(data []byte) (*Metadata[TargetsType], error) {
	if t.Snapshot == nil {
		return nil, errors.New("there is no snapshot yet")
	}
	named := t.Snapshot.Signed.Meta["targets.json"]
	if named == nil {
		return nil, errors.New("the snapshot names no targets")
	}
	if err := named.VerifyLengthHashes(data); err != nil {
		return nil, err
	}
	m, err := Targets().FromBytes(data)
	if err != nil {
		return nil, err
	}
	if err := t.Root.VerifyDelegate("targets", m); err != nil {
		return nil, err
	}
	if m.Signed.Version != named.Version {
		return nil, &ErrBadVersionNumber{fmt.Sprintf("targets %d, want %d", m.Signed.Version, named.Version)}
	}
	t.Targets["targets"] = m
	return m, nil
}

// Payload is what is signed: the canonical JSON of a Signed part, as OLPC
// defines it: sorted names, no space, only quote and backslash escaped.
func Payload(signed any) ([]byte, error) {
	data, err := json.Marshal(signed)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := canonical(&out, v); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func canonical(out *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case string:
		out.WriteString(`"` + escapes.Replace(v) + `"`)
	case json.Number:
		n, err := v.Int64()
		if err != nil {
			return fmt.Errorf("%s is no whole number", v)
		}
		fmt.Fprint(out, n)
	case bool:
		fmt.Fprint(out, v)
	case nil:
		out.WriteString("null")
	case []any:
		out.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := canonical(out, e); err != nil {
				return err
			}
		}
		out.WriteByte(']')
	case map[string]any:
		out.WriteByte('{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := canonical(out, k); err != nil {
				return err
			}
			out.WriteByte(':')
			if err := canonical(out, v[k]); err != nil {
				return err
			}
		}
		out.WriteByte('}')
	}
	return nil
}
