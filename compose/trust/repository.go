// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// Names inside a repository's folder.
const (
	// RootFile is the newest root: what is sealed in images.
	RootFile = "root.json"
	// MetadataDir has the metadata as it is published.
	MetadataDir = "tuf"
	// PendingDir has metadata that waits for signatures.
	PendingDir = "pending"
	// PrivateDir has private keys, where they are in files here.
	PrivateDir = "private"
)

// Lifetimes are how long what is signed now is valid.
type Lifetimes struct{ Root, Targets, Snapshot, Timestamp time.Duration }

const day = 24 * time.Hour

// DefaultLifetimes: a root outlives two years of bundles; targets are what a
// bundle is valid by; the online roles are renewed by a timer.
var DefaultLifetimes = Lifetimes{Root: 1095 * day, Targets: 400 * day, Snapshot: 30 * day, Timestamp: 14 * day}

func (l Lifetimes) of(role string) time.Duration {
	switch role {
	case RoleRoot:
		return cmp.Or(l.Root, DefaultLifetimes.Root)
	case RoleTargets:
		return cmp.Or(l.Targets, DefaultLifetimes.Targets)
	case RoleSnapshot:
		return cmp.Or(l.Snapshot, DefaultLifetimes.Snapshot)
	}
	return cmp.Or(l.Timestamp, DefaultLifetimes.Timestamp)
}

// Repository is the vendor's side: a folder with all metadata ever signed, the
// one place that versions are counted in. What is published are copies of it.
// Public but for its private keys, it belongs into version control without
// them.
type Repository struct {
	// Write puts data at path durably; nil writes, syncs and renames.
	Write func(path string, data []byte) error
	// Keys to sign with.
	Keys *Keyring
	// Now is the time of signing; equal times make equal bytes.
	Now time.Time
	// Lifetimes of what is signed; zero fields mean the default.
	Lifetimes Lifetimes

	dir       string
	roots     []*tuf.Metadata[tuf.RootType]
	targets   *tuf.Metadata[tuf.TargetsType]
	snapshot  *tuf.Metadata[tuf.SnapshotType]
	timestamp *tuf.Metadata[tuf.TimestampType]
	data      map[string][]byte
}

// OpenRepository reads a vendor's folder. The first root in it is trusted as
// it is, all others must follow from it.
func OpenRepository(dir string) (*Repository, error) {
	r := &Repository{dir: dir, data: map[string][]byte{}, Keys: &Keyring{Dir: filepath.Join(dir, PrivateDir)}}
	tufDir := os.DirFS(filepath.Join(dir, MetadataDir))
	first, err := lowestRoot(tufDir)
	if err != nil {
		return nil, fmt.Errorf("trust: %s holds no signing keys: make them with holdfast-release keys init %s (%w)", dir, dir, err)
	}
	sealed, err := readBounded(tufDir, rootName(first), MaxRoot)
	if err != nil {
		return nil, err
	}
	s, err := Open(filepath.Join(dir, MetadataDir), sealed)
	if err != nil {
		return nil, err
	}
	st, err := s.load(tufDir)
	if err != nil {
		return nil, err
	}
	for i, m := range st.roots {
		r.roots = append(r.roots, m)
		r.data[rootName(m.Signed.Version)] = st.bytes[i]
	}
	if next := rootName(r.root().Signed.Version + 1); exists(filepath.Join(dir, MetadataDir, next)) {
		return nil, fmt.Errorf("trust: %s/%s/%s does not follow from the root before it: take it from the last backup or publication", dir, MetadataDir, next)
	}
	// What an older root vouched for counts too: its content is signed anew.
	if r.targets, err = newest(r, "targets", RoleTargets, tuf.Targets); err != nil {
		return nil, err
	}
	if r.snapshot, err = newest(r, "snapshot", RoleSnapshot, tuf.Snapshot); err != nil {
		return nil, err
	}
	r.timestamp, err = r.read(tufDir)
	return r, err
}

func (r *Repository) read(tufDir fs.FS) (*tuf.Metadata[tuf.TimestampType], error) {
	data, err := readBounded(tufDir, "timestamp.json", MaxTimestamp)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := parse("timestamp.json", data, MaxTimestamp, tuf.Timestamp())
	if err != nil {
		return nil, err
	}
	r.data["timestamp.json"] = data
	return m, anyRoot(r.roots, RoleTimestamp, "timestamp.json", m)
}

var numbered = regexp.MustCompile(`^([1-9][0-9]{0,9})\.(root|targets|snapshot)\.json$`)

// versionsOf are the versions of a role in a folder, in order.
func versionsOf(dir fs.FS, role string) ([]int64, error) {
	names, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, err
	}
	var all []int64
	for _, n := range names {
		if m := numbered.FindStringSubmatch(n.Name()); m != nil && m[2] == role {
			v, _ := strconv.ParseInt(m[1], 10, 64)
			all = append(all, v)
		}
	}
	slices.Sort(all)
	return all, nil
}

func lowestRoot(dir fs.FS) (int64, error) {
	all, err := versionsOf(dir, RoleRoot)
	if err != nil {
		return 0, err
	}
	if len(all) == 0 {
		return 0, fmt.Errorf("it has no %s/1.root.json", MetadataDir)
	}
	return all[0], nil
}

// newest reads a role's metadata of the highest version; nil where there is none.
func newest[T tuf.Roles](r *Repository, name, role string, empty func(...time.Time) *tuf.Metadata[T]) (*tuf.Metadata[T], error) {
	dir := os.DirFS(filepath.Join(r.dir, MetadataDir))
	all, err := versionsOf(dir, name)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	file := versioned(role, all[len(all)-1])
	data, err := readBounded(dir, file, MaxMetadata)
	if err != nil {
		return nil, err
	}
	m, err := parse(file, data, MaxMetadata, empty())
	if err != nil {
		return nil, err
	}
	r.data[file] = data
	return m, anyRoot(r.roots, role, file, m)
}

// anyRoot checks that some root vouches for metadata, the newest first.
func anyRoot[T tuf.Roles](roots []*tuf.Metadata[tuf.RootType], role, file string, m *tuf.Metadata[T]) error {
	var first error
	for _, root := range slices.Backward(roots) {
		err := verify(root, role, file, m)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (r *Repository) root() *tuf.Metadata[tuf.RootType] { return r.roots[len(r.roots)-1] }

func versioned(role string, version int64) string {
	if role == RoleTimestamp {
		return "timestamp.json"
	}
	return fmt.Sprintf("%d.%s.json", version, role)
}

// write puts a file of the repository.
func (r *Repository) write(data []byte, path ...string) error {
	full := filepath.Join(append([]string{r.dir}, path...)...)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	if r.Write != nil {
		return r.Write(full, data)
	}
	return writeFile(full, data)
}

// File is one file of metadata.
type File struct {
	Name string
	Data []byte
}

// Files are what is published, in the order in which it must be written: a
// reader that comes in between sees the old state or the new one. Only where a
// new root replaces the timestamp's key, and a reader comes just between the
// last two files, is it refused, and finds all well when it looks again.
func (r *Repository) Files() ([]File, error) {
	if err := r.whole(); err != nil {
		return nil, err
	}
	var files []File
	for _, name := range []string{versioned(RoleTargets, r.targets.Signed.Version), versioned(RoleSnapshot, r.snapshot.Signed.Version)} {
		files = append(files, File{name, r.data[name]})
	}
	return append(append(files, r.rootFiles()...), File{"timestamp.json", r.data["timestamp.json"]}), nil
}

// BundleFiles are the metadata of a bundle.
func (r *Repository) BundleFiles() ([]File, error) {
	name := ""
	if r.targets != nil {
		name = versioned(RoleTargets, r.targets.Signed.Version)
	}
	if name == "" || verify(r.root(), RoleTargets, name, r.targets) != nil {
		return nil, refuse(ErrSignature, BundleTargets, "the targets are not signed under the newest root: run holdfast-release sign")
	}
	if waits := r.Waiting(); len(waits) > 0 {
		return nil, refuse(ErrSignature, waits[0].File, waits[0].String())
	}
	return append(r.rootFiles(), File{BundleTargets, r.data[name]}), nil
}

func (r *Repository) rootFiles() []File {
	var files []File
	for _, m := range r.roots {
		files = append(files, File{rootName(m.Signed.Version), r.data[rootName(m.Signed.Version)]})
	}
	return files
}

// whole checks that the newest of everything belongs together and is signed
// under the newest root, and that nothing waits.
func (r *Repository) whole() error {
	if waits := r.Waiting(); len(waits) > 0 {
		return refuse(ErrSignature, waits[0].File, waits[0].String())
	}
	if r.stale(RoleTargets) || r.stale(RoleSnapshot) || r.stale(RoleTimestamp) {
		return refuse(ErrNoKey, MetadataDir, "targets, snapshot and timestamp are not all signed for what is there now: run holdfast-release sign where the keys of these roles are at hand")
	}
	return nil
}

// RootLeft is how long the newest root is still valid.
func (r *Repository) RootLeft() time.Duration { return r.root().Signed.Expires.Sub(r.Now) }

// Releases are the targets as they stand.
func (r *Repository) Releases() ([]Target, error) {
	if r.targets == nil {
		return nil, nil
	}
	return targetsOf(versioned(RoleTargets, r.targets.Signed.Version), r.targets)
}
