// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// Store is what a box trusts: the root of trust sealed in its image, and in a
// folder on state the roots that followed and the newest metadata it has seen,
// so that nothing older is ever taken.
//
// The folder is only a memory. All of it is verified from the sealed root at
// each use, what does not verify counts as absent, and the next Refresh writes
// it anew: so a crash at any write, and a lost or damaged folder, mend
// themselves. Methods may be called from several goroutines of one process.
type Store struct {
	// Write puts data at path durably; nil writes, syncs and renames.
	Write func(path string, data []byte) error

	dir    string
	sealed []byte
	mu     sync.Mutex
}

// Open reads the store in a folder, which may be missing. The sealed root must
// be right; the newer of it and the folder's counts.
func Open(store string, sealedRoot []byte) (*Store, error) {
	s := &Store{dir: store, sealed: sealedRoot}
	if _, err := parse("root.json", sealedRoot, MaxRoot, tuf.Root()); err != nil {
		return nil, fmt.Errorf("the root of trust sealed in this system is not usable, so no release can be trusted: install a newer image: %w", err)
	}
	if _, err := s.load(os.DirFS(store)); err != nil {
		return nil, fmt.Errorf("the root of trust sealed in this system is not usable, so no release can be trusted: install a newer image: %w", err)
	}
	return s, nil
}

// state is what a store knows, all of it verified.
type state struct {
	trusted *tuf.Trusted
	// roots from the sealed one on, and their bytes.
	roots []*tuf.Metadata[tuf.RootType]
	bytes [][]byte
	// timestamp, snapshot and targets as stored; nil where there is none that
	// the newest root vouches for.
	timestamp, snapshot, targets []byte
	// at is the newest time of signing among them.
	at time.Time
}

// root is the one that counts.
func (st *state) root() *tuf.Metadata[tuf.RootType] { return st.roots[len(st.roots)-1] }

// load follows the chain of roots in a folder from the sealed one.
func (s *Store) load(dir fs.FS) (*state, error) {
	t, err := tuf.NewTrusted(s.sealed)
	if err != nil {
		return nil, refuse(ErrSignature, "root.json", fmt.Sprintf("the sealed root.json is not signed by its own keys (%v): install a newer image", err))
	}
	// Expiry is judged by us, at a time that the library cannot be told.
	t.RefTime = time.Time{}
	st := &state{trusted: t, roots: []*tuf.Metadata[tuf.RootType]{t.Root}, bytes: [][]byte{s.sealed}}
	for len(st.roots) <= MaxRoots {
		name := rootName(st.root().Signed.Version + 1)
		data, err := readBounded(dir, name, MaxRoot)
		if err != nil || st.addRoot(name, data) != nil {
			break
		}
	}
	return st, nil
}

// addRoot takes the next root over.
func (st *state) addRoot(name string, data []byte) error {
	m, err := parse(name, data, MaxRoot, tuf.Root())
	if err != nil {
		return err
	}
	now := st.root()
	if want := now.Signed.Version + 1; m.Signed.Version != want {
		return refuse(ErrRollback, name, fmt.Sprintf("%s holds version %d, not %d: the source repeats or skips a root; use another", name, m.Signed.Version, want))
	}
	// Signed by the root before and by itself: each of the two must be met.
	if err := verify(now, RoleRoot, name, m, m); err != nil {
		return err
	}
	if err := verify(m, RoleRoot, name, m, now); err != nil {
		return err
	}
	if _, err := st.trusted.UpdateRoot(data); err != nil {
		return translate(name, err)
	}
	st.roots, st.bytes = append(st.roots, m), append(st.bytes, data)
	return nil
}

// remember reads timestamp, snapshot and targets as far as they verify.
func (st *state) remember(dir fs.FS) {
	root := st.root()
	if data, m := remembered(dir, "timestamp.json", MaxTimestamp, RoleTimestamp, root, tuf.Timestamp()); m != nil {
		st.timestamp = data
		st.seen(tuf.SignedAt(m))
	}
	if data, m := remembered(dir, "snapshot.json", MaxMetadata, RoleSnapshot, root, tuf.Snapshot()); m != nil {
		st.snapshot = data
	}
	if data, m := remembered(dir, BundleTargets, MaxMetadata, RoleTargets, root, tuf.Targets()); m != nil {
		st.targets = data
		st.seen(tuf.SignedAt(m))
	}
}

func remembered[T tuf.Roles](dir fs.FS, name string, limit int, role string, root *tuf.Metadata[tuf.RootType], empty *tuf.Metadata[T]) ([]byte, *tuf.Metadata[T]) {
	data, err := readBounded(dir, name, limit)
	if err != nil {
		return nil, nil
	}
	m, err := parse(name, data, limit, empty)
	if err != nil || verify(root, role, name, m) != nil {
		return nil, nil
	}
	return data, m
}

// seen notes a time of signing: it has passed.
func (st *state) seen(at string) {
	if t, err := time.Parse(time.RFC3339, at); err == nil && t.After(st.at) {
		st.at = t
	}
}

// write puts a file of the store, unless it says the same already.
func (s *Store) write(dir, name string, data []byte) error {
	path := filepath.Join(dir, name)
	if now, err := readBounded(os.DirFS(dir), name, MaxMetadata); err == nil && string(now) == string(data) {
		return nil
	}
	if s.Write != nil {
		return s.Write(path, data)
	}
	return writeFile(path, data)
}

// writeFile is a durable write for who has no better one.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = errors.Join(f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readBounded(dir fs.FS, name string, limit int) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(data) > limit {
		return nil, tooLarge(name, int64(limit))
	}
	return data, nil
}

func rootName(version int64) string { return strconv.FormatInt(version, 10) + ".root.json" }

// translate gives the library's errors our kinds. Most were found before, with
// a better sentence.
func translate(file string, err error) error {
	var unsigned *tuf.ErrUnsignedMetadata
	var version *tuf.ErrBadVersionNumber
	var hash *tuf.ErrLengthOrHashMismatch
	switch {
	case errors.As(err, &unsigned):
		return refuse(ErrSignature, file, fmt.Sprintf("%s is not signed as it must be (%v): ask the vendor for the release's right source", file, err))
	case errors.As(err, &version):
		return refuse(ErrRollback, file, fmt.Sprintf("%s goes back to an older state (%v): the source is an old copy; use another", file, err))
	case errors.As(err, &hash):
		return refuse(ErrMixed, file, fmt.Sprintf("%s is not the file that was signed with the rest (%v): the source is damaged or mixes two states; fetch it again or use another", file, err))
	}
	return refuse(ErrDamaged, file, fmt.Sprintf("%s is damaged (%v): fetch it again from a good copy", file, err))
}
