// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/images/durable"
)

// Format is the record format this package writes and the only one it reads.
const Format = 1

// Path is where the record lies on a box, below the root given to Load: two
// copies, Path.1 and Path.2 (durable.Record). A record of before there were
// two, under the plain name, is read while there are none.
const Path = "var/lib/holdfast/generation.json"

const (
	// maxRecord bounds the record in bytes; a real one is under 8 KiB.
	maxRecord = 64 << 10
	// MaxQuarantined bounds the digests that are kept out; the oldest goes.
	MaxQuarantined = 64
	// maxWords bounds texts in the record in bytes.
	maxWords = 4 << 10
	// maxSeconds bounds deadlines: 30 days.
	maxSeconds = 30 * 86400
	maxNumber  = 1 << 30
)

var (
	hashShape   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	digestShape = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	// engineShape is what names a folder of state.
	engineShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)
)

func record(root string) durable.Record {
	return durable.Record{Path: filepath.Join("/", root, Path), Max: maxRecord}
}

// Load reads the record below root. A box that has none gives an error that
// is fs.ErrNotExist.
func Load(root string) (Record, error) {
	r := record(root)
	data, err := r.Load()
	if Missing(err) {
		data, err = plain(r.Path)
	}
	if Missing(err) {
		return Record{}, err
	}
	var rec Record
	if err == nil {
		rec, err = Parse(data)
	}
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w; restore the file from a backup, nothing is started without it", r.Path, err)
	}
	return rec, nil
}

func plain(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRecord+1))
}

// Parse reads a record from its JSON. Fields it does not know are skipped: a
// newer supervisor may have written them, and the kept one must read on.
func Parse(data []byte) (Record, error) {
	var rec Record
	if len(data) > maxRecord {
		return rec, fmt.Errorf("more than %d bytes: not a generation record", maxRecord)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&rec); err != nil {
		return Record{}, fmt.Errorf("not a generation record: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Record{}, errors.New("more than one JSON value")
	}
	if err := rec.check(); err != nil {
		return Record{}, err
	}
	return rec, nil
}

// dataOf says whether a volume can hold a generation's data: its own, or an
// earlier one's that it goes on with, as after a data disk was adopted.
func dataOf(volume string, number int) bool {
	digits, ok := strings.CutPrefix(volume, "data-")
	if !ok {
		return false
	}
	n, err := strconv.Atoi(digits)
	return err == nil && n >= 1 && n <= number && volume == DataVolume(n)
}

// Save writes the record below root; after a crash the old or the new one is
// there, never a mix. Who changes a record that others may change uses Update.
func Save(root string, rec Record) error {
	if err := rec.check(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	return record(root).Save(append(data, '\n'), 0o644)
}

// Update reads the record below root, has it changed and writes it, while no
// other process does so. It gives the record that is there afterwards. Nothing
// is written where change fails or changes nothing.
func Update(root string, change func(*Record) error) (Record, error) {
	unlock, err := record(root).Lock()
	if err != nil {
		return Record{}, err
	}
	defer unlock()
	rec, err := Load(root)
	if err != nil {
		return Record{}, err
	}
	next := rec.clone()
	if err := change(&next); err != nil {
		return rec, err
	}
	if reflect.DeepEqual(rec, next) {
		return rec, nil
	}
	if err := Save(root, next); err != nil {
		return rec, err
	}
	return next, nil
}

// Missing says whether err from Load means that there is no record yet.
func Missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func (rec Record) clone() Record {
	if rec.Kept != nil {
		kept := *rec.Kept
		rec.Kept = &kept
	}
	if rec.Trial != nil {
		trial := *rec.Trial
		rec.Trial = &trial
	}
	rec.Quarantined = slices.Clone(rec.Quarantined)
	return rec
}

// Quarantine keeps a digest out. The oldest is forgotten where there are too
// many.
func (rec *Record) Quarantine(digest string) {
	if digest == "" || slices.Contains(rec.Quarantined, digest) {
		return
	}
	rec.Quarantined = append(slices.Clone(rec.Quarantined), digest)
	if over := len(rec.Quarantined) - MaxQuarantined; over > 0 {
		rec.Quarantined = rec.Quarantined[over:]
	}
}

// Twice writes the record that is there over its other copy, so that both hold
// it: were the newer one to rot, the older one must not undo what it says.
func Twice(root string) error {
	unlock, err := record(root).Lock()
	if err != nil {
		return err
	}
	defer unlock()
	rec, err := Load(root)
	if err != nil {
		return err
	}
	return Save(root, rec)
}
