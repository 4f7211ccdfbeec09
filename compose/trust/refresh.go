// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// Refresh asks a source for newer metadata and returns the releases it offers,
// by path. It follows TUF's client workflow (root chain, timestamp, snapshot,
// targets), of a bundle the chain of roots and targets alone. Only when all of
// it verifies is any of it stored: a refused refresh changes nothing.
//
// A refusal is an *Error; an error of the source stays what it was.
func (s *Store) Refresh(ctx context.Context, from Source, o Options) ([]Target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.load(os.DirFS(s.dir))
	if err != nil {
		return nil, err
	}
	if err := st.newRoots(ctx, from); err != nil {
		return nil, err
	}
	// The memory is read after the roots: what a revoked key signed is
	// forgotten, as TUF wants it after a compromise.
	st.remember(os.DirFS(s.dir))
	r := &refresh{state: st, from: from, o: o}
	if o.Offline {
		err = r.offline(ctx)
	} else {
		err = r.online(ctx)
	}
	if err != nil {
		return nil, err
	}
	all, err := targetsOf(r.targetsName, r.targets)
	if err != nil {
		return nil, err
	}
	if err := r.judge(); err != nil {
		return nil, err
	}
	return all, s.store(st)
}

// refresh is one under way. What it finds goes into its state.
type refresh struct {
	*state
	from        Source
	o           Options
	stamp       *tuf.Metadata[tuf.TimestampType]
	snap        *tuf.Metadata[tuf.SnapshotType]
	targets     *tuf.Metadata[tuf.TargetsType]
	targetsName string
}

// newRoots follows the chain of roots at the source.
func (st *state) newRoots(ctx context.Context, from Source) error {
	for n := 0; ; n++ {
		name := rootName(st.root().Signed.Version + 1)
		if n == MaxRoots {
			return refuse(ErrTooLarge, name, fmt.Sprintf("the source has more than %d roots after the one this box knows: use another source", MaxRoots))
		}
		data, err := from.Metadata(ctx, name, MaxRoot)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return unread(name, MaxRoot, err)
		}
		if err := st.addRoot(name, data); err != nil {
			return err
		}
	}
}

// unread is an error of the source. One that says TooLarge gave more bytes than
// it was asked for, which is a refusal and not a failure.
func unread(name string, limit int64, err error) error {
	var large interface{ TooLarge() }
	if errors.As(err, &large) {
		return tooLarge(name, limit)
	}
	return fmt.Errorf("trust: read %s: %w", name, err)
}

// fetch gets one file that must be there.
func (r *refresh) fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	data, err := r.from.Metadata(ctx, name, limit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, refuse(ErrMissing, name, fmt.Sprintf("the source has no tuf/%s: it holds no releases, or is an incomplete copy; check its address, or copy it again", name))
	case err != nil:
		return nil, unread(name, limit, err)
	case int64(len(data)) > limit:
		return nil, tooLarge(name, limit)
	}
	return data, nil
}

func (r *refresh) online(ctx context.Context) error {
	root, t := r.root(), r.trusted
	if r.timestamp != nil {
		if _, err := t.UpdateTimestamp(r.timestamp); err != nil {
			r.timestamp = nil
		}
	}
	data, err := r.fetch(ctx, "timestamp.json", MaxTimestamp)
	if err != nil {
		return err
	}
	if r.stamp, err = parse("timestamp.json", data, MaxTimestamp, tuf.Timestamp()); err != nil {
		return err
	}
	if err := verify(root, RoleTimestamp, "timestamp.json", r.stamp); err != nil {
		return err
	}
	_, err = t.UpdateTimestamp(data)
	var equal *tuf.ErrEqualVersionNumber
	switch {
	case errors.As(err, &equal):
		if !bytes.Equal(data, r.timestamp) {
			return twice("timestamp.json", r.stamp.Signed.Version)
		}
	case err != nil:
		return translate("timestamp.json", err)
	}
	r.timestamp = data
	if err := r.newSnapshot(ctx, r.stamp.Signed.Meta["snapshot.json"]); err != nil {
		return err
	}
	return r.newTargets(ctx, r.snap.Signed.Meta["targets.json"])
}

// newSnapshot takes the snapshot that the timestamp names. The stored one is
// loaded first: versions in it never go back.
func (r *refresh) newSnapshot(ctx context.Context, want *tuf.MetaFiles) error {
	name := strconv.FormatInt(want.Version, 10) + ".snapshot.json"
	if r.snapshot != nil {
		old, err := parse(name, r.snapshot, MaxMetadata, tuf.Snapshot())
		if err != nil {
			return err
		}
		_, err = r.trusted.UpdateSnapshot(r.snapshot, true)
		if old.Signed.Version == want.Version {
			if want.VerifyLengthHashes(r.snapshot) != nil {
				return twice(name, want.Version)
			}
			if err != nil {
				return translate(name, err)
			}
			r.snap = old
			return nil
		}
	}
	data, err := r.fetch(ctx, name, MaxMetadata)
	if err != nil {
		return err
	}
	if err := want.VerifyLengthHashes(data); err != nil {
		return translate(name, err)
	}
	if r.snap, err = parse(name, data, MaxMetadata, tuf.Snapshot()); err != nil {
		return err
	}
	if err := verify(r.root(), RoleSnapshot, name, r.snap); err != nil {
		return err
	}
	if _, err := r.trusted.UpdateSnapshot(data, false); err != nil {
		return translate(name, err)
	}
	r.snapshot = data
	return nil
}

// newTargets takes the targets that the snapshot names.
func (r *refresh) newTargets(ctx context.Context, want *tuf.MetaFiles) error {
	name := strconv.FormatInt(want.Version, 10) + ".targets.json"
	data := r.state.targets
	if data == nil || want.VerifyLengthHashes(data) != nil {
		var err error
		if data, err = r.fetch(ctx, name, MaxMetadata); err != nil {
			return err
		}
	}
	if err := want.VerifyLengthHashes(data); err != nil {
		return translate(name, err)
	}
	if err := r.take(name, data); err != nil {
		return err
	}
	if _, err := r.trusted.UpdateTargets(data); err != nil {
		return translate(name, err)
	}
	return nil
}

func (r *refresh) offline(ctx context.Context) error {
	data, err := r.fetch(ctx, BundleTargets, MaxMetadata)
	if err != nil {
		return err
	}
	return r.take(BundleTargets, data)
}

// take verifies targets against the root and against what is stored.
func (r *refresh) take(name string, data []byte) error {
	m, err := parse(name, data, MaxMetadata, tuf.Targets())
	if err != nil {
		return err
	}
	if err := verify(r.root(), RoleTargets, name, m); err != nil {
		return err
	}
	if err := r.root().VerifyDelegate(RoleTargets, m); err != nil {
		return translate(name, err)
	}
	if r.state.targets != nil {
		old, err := parse(BundleTargets, r.state.targets, MaxMetadata, tuf.Targets())
		if err != nil {
			return err
		}
		switch now, before := m.Signed.Version, old.Signed.Version; {
		case now < before:
			return refuse(ErrRollback, name, fmt.Sprintf("%s is version %d and this box has seen version %d: it is an old copy or an old bundle; use a newer one", name, now, before))
		case now == before && !bytes.Equal(data, r.state.targets):
			return twice(name, now)
		}
	}
	r.targets, r.targetsName, r.state.targets = m, name, data
	return nil
}

// twice refuses two contents under one version: only the vendor's key can make
// them, so it is a mistake there, or worse.
func twice(file string, version int64) error {
	return refuse(ErrMixed, file, fmt.Sprintf("%s is version %d with other content than this box has seen under that version: ask the vendor, whose keys signed both", file, version))
}

// aged is a file of metadata, and until when it holds.
type aged struct {
	name    string
	expires time.Time
}

// judge looks at the age of what the refresh goes by.
func (r *refresh) judge() error {
	if r.stamp != nil {
		r.seen(tuf.SignedAt(r.stamp))
	}
	r.seen(tuf.SignedAt(r.targets))
	now := r.o.Now
	for _, t := range []time.Time{r.o.Least, r.at} {
		if t.After(now) {
			now = t
		}
	}
	files := []aged{{rootName(r.root().Signed.Version), r.root().Signed.Expires}}
	if r.stamp != nil {
		files = append(files, aged{"timestamp.json", r.stamp.Signed.Expires},
			aged{strconv.FormatInt(r.snap.Signed.Version, 10) + ".snapshot.json", r.snap.Signed.Expires})
	}
	files = append(files, aged{r.targetsName, r.targets.Signed.Expires})
	if r.o.Expires != nil {
		first := files[0].expires
		for _, f := range files {
			if f.expires.Before(first) {
				first = f.expires
			}
		}
		r.o.Expires(first)
	}
	for _, f := range files {
		if !now.After(f.expires) {
			continue
		}
		day := f.expires.UTC().Format(time.DateOnly)
		if !r.o.AcceptExpired {
			return refuse(ErrExpired, f.name, fmt.Sprintf("%s expired on %s and it is %s here: the source is an old copy, or the vendor has not renewed it; use a newer one, or take it as it is with --accept-expired", f.name, day, now.UTC().Format(time.DateOnly)))
		}
		r.o.log(fmt.Sprintf("%s expired on %s and is accepted nevertheless, as --accept-expired says", f.name, day))
	}
	return nil
}

// store writes what a refresh has found: first the roots, oldest first, since
// all else is verified from them. A crash between two writes leaves files of
// two states, each valid: the next refresh takes them as lower bounds.
func (s *Store) store(st *state) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	for i, r := range st.roots {
		if err := s.write(s.dir, rootName(r.Signed.Version), st.bytes[i]); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"timestamp.json", st.timestamp}, {"snapshot.json", st.snapshot}, {BundleTargets, st.targets}} {
		if f.data == nil {
			continue
		}
		if err := s.write(s.dir, f.name, f.data); err != nil {
			return err
		}
	}
	return nil
}
