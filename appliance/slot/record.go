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
	"regexp"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/images/durable"
)

// Format is the record format this package writes and the only one it reads.
const Format = 1

// Path is where the record lies on a box, below the root given to Load.
const Path = "var/lib/holdfast/generation.json"

// maxRecord bounds the record in bytes; a real one is under 400.
const maxRecord = 64 << 10

var hashShape = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Load reads the record below root. A box that has none gives an error that
// is fs.ErrNotExist.
func Load(root string) (Record, error) {
	name := filepath.Join("/", root, Path)
	f, err := os.Open(name)
	if err != nil {
		return Record{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return Record{}, err
	}
	rec, err := Parse(data)
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w; restore the file from a backup, nothing is started without it", name, err)
	}
	return rec, nil
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

func (rec Record) check() error {
	g := rec.Committed
	switch {
	case rec.Format != Format:
		return fmt.Errorf("format: %d is not known, want %d", rec.Format, Format)
	case g.Number < 1:
		return fmt.Errorf("committed.number: %d, want 1 or more", g.Number)
	case g.Slot != "A" && g.Slot != "B":
		return fmt.Errorf("committed.slot: %q, want A or B", g.Slot)
	case !hashShape.MatchString(g.RootHash):
		return fmt.Errorf("committed.root_hash: %q, want 64 hex digits", g.RootHash)
	case !dataOf(g.Data, g.Number):
		return fmt.Errorf("committed.data: %q, want %q or that of an earlier generation", g.Data, DataVolume(g.Number))
	}
	return nil
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
// there, never a mix.
func Save(root string, rec Record) error {
	if err := rec.check(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join("/", root, Path), append(data, '\n'), 0o644)
}

// Missing says whether err from Load means that there is no record yet.
func Missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
