// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/images/durable"
	"github.com/holdfast/holdfast/images/ebs"
)

// state is what a run leaves for the next one that uploads under the same name
// to the same region. A run that ends in order removes it; what kill -9 leaves
// is enough to go on, or to clear away what another image made.
type state struct {
	Format int `json:"format"`
	// Upload is the hash of all that decides the snapshot, Attempt is drawn
	// anew for each snapshot that is started; both give the client token.
	Upload  string `json:"upload"`
	Attempt string `json:"attempt"`
	// Parent is what parent_snapshot_id = "last" was when it was asked.
	Parent string `json:"parent,omitempty"`
	// Started is when StartSnapshot was first asked.
	Started  time.Time `json:"started"`
	Snapshot string    `json:"snapshot,omitempty"`
	// Complete is true when the snapshot holds the whole disk.
	Complete bool   `json:"complete,omitempty"`
	Image    string `json:"image,omitempty"`
	// Regions are all that the attempt may have made something in.
	Regions []string `json:"regions,omitempty"`
	// Sent has a bit for each block of Snapshot that EBS took, lowest first.
	Sent []byte `json:"sent,omitempty"`
}

const (
	stateFormat = 1
	// maxState bounds the file in bytes: a bit for each block of the largest
	// volume as base64, and the rest.
	maxState = 24 << 20
)

var (
	hexRE   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	drawnRE = regexp.MustCompile(`^[0-9a-f]{32}$`)
	imageRE = regexp.MustCompile(`^ami-[0-9a-f]{1,60}$`)
)

func newState(upload, parent string, regions []string) *state {
	var b [16]byte
	rand.Read(b[:]) // never fails, by its documentation
	return &state{Format: stateFormat, Upload: upload, Attempt: hex.EncodeToString(b[:]), Parent: parent, Regions: regions}
}

// token of a request of this attempt, at most 64 ASCII characters.
func (s *state) token(what string) string {
	h := sha256.Sum256([]byte(s.Upload + " " + s.Attempt + " " + what))
	return hex.EncodeToString(h[:])
}

func (s *state) has(i int32) bool {
	return int(i/8) < len(s.Sent) && s.Sent[i/8]&(1<<(i%8)) != 0
}

func (s *state) mark(i int32) {
	if n := int(i/8) + 1; n > len(s.Sent) {
		s.Sent = append(s.Sent, make([]byte, n-len(s.Sent))...)
	}
	s.Sent[i/8] |= 1 << (i % 8)
}

// parseState reads a state; an unknown key or an odd value is an error.
func parseState(b []byte) (*state, error) {
	if len(b) > maxState {
		return nil, fmt.Errorf("it has %d bytes", len(b))
	}
	var s state
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, err
	}
	switch {
	case s.Format != stateFormat:
		return nil, fmt.Errorf("format %d is not known", s.Format)
	case !hexRE.MatchString(s.Upload), !drawnRE.MatchString(s.Attempt):
		return nil, errors.New("it names no upload")
	case s.Snapshot != "" && !snapshotRE.MatchString(s.Snapshot), s.Image != "" && !imageRE.MatchString(s.Image), s.Parent != "" && !snapshotRE.MatchString(s.Parent):
		return nil, errors.New("it has an id that is none")
	case int64(len(s.Sent)) > ebs.MaxGiB*ebs.GiB/ebs.BlockSize/8:
		return nil, errors.New("it has more blocks than a volume")
	case len(s.Regions) > 100:
		return nil, errors.New("it has more regions than there are")
	}
	for _, r := range s.Regions {
		if r == "" || len(r) > 64 {
			return nil, errors.New("it has a region that is none")
		}
	}
	return &s, nil
}

// store is where states and lists of blocks are kept.
type store struct {
	dir, file string
	lock      *os.File
}

// openStore takes the place of uploads under one name to one region; a second
// run that wants it is refused, because both would write one snapshot.
func openStore(cache, region, endpoint, name string) (*store, error) {
	dir := filepath.Join(cache, "ami")
	h := sha256.Sum256([]byte(region + "\n" + endpoint + "\n" + name))
	key := hex.EncodeToString(h[:16])
	if err := os.MkdirAll(filepath.Join(dir, "blocks"), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, key+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another run on this machine uploads %q to %s: wait for it, or choose another ami_name", name, region)
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return &store{dir: dir, file: filepath.Join(dir, key+".json"), lock: f}, nil
}

func (s *store) close() { s.lock.Close() }

// load returns nil when there is no state.
func (s *store) load() (*state, error) {
	st, err := os.Stat(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err == nil && st.Size() > maxState {
		err = fmt.Errorf("it has %d bytes", st.Size())
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(s.file)
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", s.file, err)
	}
	got, err := parseState(b)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", s.file, err)
	}
	return got, nil
}

func (s *store) save(st *state) error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(s.file, b, 0o644); err != nil {
		return fmt.Errorf("keep the state of the upload: %w", err)
	}
	return nil
}

func (s *store) forget() error {
	if err := os.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(s.dir)
}

func (s *store) listFile(snapshot string) string {
	return filepath.Join(s.dir, "blocks", snapshot+".list")
}

// list is what a snapshot holds as far as it is known here, else nil.
func (s *store) list(snapshot string) *ebs.List {
	f, err := os.Open(s.listFile(snapshot))
	if err != nil {
		return nil
	}
	defer f.Close()
	l, err := ebs.ReadList(f)
	if err != nil {
		return nil
	}
	return l
}

func (s *store) keep(snapshot string, l *ebs.List) error {
	var b bytes.Buffer
	if _, err := l.WriteTo(&b); err != nil {
		return err
	}
	return durable.WriteFile(s.listFile(snapshot), b.Bytes(), 0o644)
}
