// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/images/durable"
)

// Record says what a target file is; it lies beside it as NAME.json.
type Record struct {
	Format int `json:"format"`
	// Target is "ova" or "gce".
	Target string `json:"target"`
	// File is its name in the output folder, Bytes its length, SHA256 64 hex
	// digits.
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	// RootHash is the dm-verity root hash of the disk in it, DiskSHA256 the
	// hash of disk.raw, DiskBytes the length of the disk the machine gets.
	RootHash   string `json:"root_hash"`
	DiskSHA256 string `json:"disk_sha256"`
	DiskBytes  int64  `json:"disk_bytes"`
	// Inputs is the sha256 over disk and options.
	Inputs string `json:"inputs"`
	// ModTime of the file in nanoseconds since 1970: one that was written
	// since is made again.
	ModTime int64 `json:"mod_time_ns"`
}

// Spec is a file to make of a disk.
type Spec struct {
	// Target and Name as in Record.
	Target, Name string
	// DiskBytes as in Record.
	DiskBytes int64
	// Options are all that decides its bytes beside the disk, with a version
	// of the encoder that rises when it writes other bytes; encoded as JSON.
	Options any
}

var fileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`)

// Make writes a file beside the disk, unless it is there already, made of the
// same disk and options. write gets an empty file that has another name until
// it is complete and on disk; an error or a cut leaves the old file as it was.
func (d *Disk) Make(ctx context.Context, s Spec, write func(ctx context.Context, f *os.File) error) (rec Record, unchanged bool, err error) {
	if !fileName.MatchString(s.Name) {
		return rec, false, fmt.Errorf("%q is not a file name: use at most 200 of letters, digits, '.', '_' and '-'", s.Name)
	}
	rec = Record{Format: 1, Target: s.Target, File: s.Name, RootHash: d.Manifest.RootHash, DiskSHA256: d.SHA256(), DiskBytes: s.DiskBytes}
	if rec.Inputs, err = inputs(rec, s.Options); err != nil {
		return rec, false, err
	}
	if old, ok := d.kept(rec); ok {
		return old, true, nil
	}
	place := filepath.Join(d.Dir, s.Name)
	tmp := filepath.Join(d.Dir, "."+s.Name+".making")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return rec, false, err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return rec, false, err
	}
	defer os.Remove(tmp)
	defer f.Close()
	if err := write(ctx, f); err != nil {
		return rec, false, explain(err)
	}
	if err := rec.measure(ctx, f); err != nil {
		return rec, false, explain(err)
	}
	if err := durable.Rename(tmp, place); err != nil {
		return rec, false, err
	}
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return rec, false, err
	}
	return rec, false, durable.WriteFile(place+".json", append(data, '\n'), 0o644)
}

// measure puts the file on disk and fills in what it has become.
func (r *Record) measure(ctx context.Context, f *os.File) error {
	// Closing the file ends a read or a flush that is under way.
	defer context.AfterFunc(ctx, func() { f.Close() })()
	if err := f.Sync(); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	r.Bytes, r.SHA256, r.ModTime = n, hex.EncodeToString(h.Sum(nil)), st.ModTime().UnixNano()
	return ctx.Err()
}

// kept is the record of a file that is there and is what want asks for.
func (d *Disk) kept(want Record) (Record, bool) {
	old, err := ReadRecord(filepath.Join(d.Dir, want.File))
	if err != nil || old.Inputs != want.Inputs {
		return Record{}, false
	}
	st, err := os.Stat(filepath.Join(d.Dir, want.File))
	return old, err == nil && st.Size() == old.Bytes && st.ModTime().UnixNano() == old.ModTime
}

// ReadRecord reads the record beside a target file.
func ReadRecord(file string) (Record, error) {
	var r Record
	b, err := os.ReadFile(file + ".json")
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s.json: %w", file, err)
	}
	return r, nil
}

func inputs(r Record, options any) (string, error) {
	b, err := json.Marshal([]any{r.Target, r.File, r.RootHash, r.DiskSHA256, r.DiskBytes, options})
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:]), nil
}

func explain(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: the disk is full; free some room, or bake into another folder", err)
	}
	return err
}
