// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/images/durable"
)

// Bounds of what is kept on disk.
const (
	journalMax  = 1 << 20 // bytes of one journal file before it is rotated
	journalKeep = 4       // rotated files beside the current one
	historyMax  = 4 << 20 // a larger history is refused as damaged
)

// Entry is one line of the journal: what was done or seen, and why.
type Entry struct {
	Time    time.Time `json:"time"`
	Boot    string    `json:"boot,omitempty"`
	Service string    `json:"service,omitempty"`
	// Act is an operation's kind, "seen", "state", "stack" or "daemon".
	Act       string  `json:"act"`
	Container string  `json:"container,omitempty"`
	Because   string  `json:"because,omitempty"`
	Error     string  `json:"error,omitempty"`
	Seconds   float64 `json:"seconds,omitempty"`
}

// Journal is the folder that outlives the daemon: journal.jsonl, what was
// done and why, for people; history.json, what Decide needs to remember.
type Journal struct {
	dir  string
	boot string
	file *os.File
	size int64
	last []byte // the history as it is on disk
}

// OpenJournal opens or makes the folder.
func OpenJournal(dir, boot string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	j := &Journal{dir: dir, boot: boot}
	return j, j.open()
}

func (j *Journal) open() error {
	f, err := os.OpenFile(j.path(0), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	j.file, j.size = f, st.Size()
	return nil
}

func (j *Journal) path(n int) string {
	if n == 0 {
		return filepath.Join(j.dir, "journal.jsonl")
	}
	return filepath.Join(j.dir, fmt.Sprintf("journal.%d.jsonl", n))
}

// Close closes the current file.
func (j *Journal) Close() error { return j.file.Close() }

// Write appends one line. A line is not synced: losing the last ones to a
// power cut harms nobody, and a sync per line would wear the disk.
func (j *Journal) Write(e Entry) error {
	e.Boot = j.boot
	e.Time = e.Time.UTC()
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if j.size+int64(len(b))+1 > journalMax {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	n, err := j.file.Write(append(b, '\n'))
	j.size += int64(n)
	return err
}

func (j *Journal) rotate() error {
	// Synced before it is renamed: an old file must not turn out empty.
	if err := j.file.Sync(); err != nil {
		return err
	}
	if err := j.file.Close(); err != nil {
		return err
	}
	for n := journalKeep - 1; n >= 0; n-- {
		err := durable.Rename(j.path(n), j.path(n+1))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return j.open()
}

// History reads the memory. A missing one is new; a damaged one is put aside
// and reported, and the supervisor starts from what the engine shows.
func (j *Journal) History() (History, error) {
	path := filepath.Join(j.dir, "history.json")
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return NewHistory(), nil
	}
	if err != nil {
		return NewHistory(), err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, historyMax+1))
	if err != nil {
		return NewHistory(), err
	}
	h, err := parseHistory(b)
	if err != nil {
		aside := path + ".damaged"
		if rerr := durable.Rename(path, aside); rerr != nil {
			return NewHistory(), rerr
		}
		return NewHistory(), fmt.Errorf("the supervisor's memory was damaged (%w) and is kept as %s; restart counts begin anew", err, aside)
	}
	j.last = b
	return h, nil
}

func parseHistory(b []byte) (History, error) {
	if len(b) > historyMax {
		return History{}, fmt.Errorf("larger than %d bytes", historyMax)
	}
	var h History
	if err := json.Unmarshal(b, &h); err != nil {
		return History{}, err
	}
	if h.Format != 1 {
		return History{}, fmt.Errorf("format %d, want 1", h.Format)
	}
	if h.Past == nil {
		h.Past = map[string]Past{}
	}
	return h, nil
}

// Save makes the memory durable where it changed.
func (j *Journal) Save(h History) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if bytes.Equal(b, j.last) {
		return nil
	}
	if err := durable.WriteFile(filepath.Join(j.dir, "history.json"), b, 0o600); err != nil {
		return err
	}
	j.last = b
	return nil
}
