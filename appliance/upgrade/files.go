// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/images/durable"
)

// Files keeps small files by name.
type Files interface {
	// Read gives fs.ErrNotExist for none.
	Read(name string) ([]byte, error)
	// Write is durable: after a crash the old bytes or the new ones are there.
	Write(name string, data []byte) error
	// Remove is durable too, and no error where there is none.
	Remove(name string) error
}

// Names of the machine's own files. None decides what runs: that is the
// record's alone.
const (
	requestFile  = "request.json"
	historyFile  = "history.json"
	evidenceFile = "evidence.json"
	stateFile    = "state.json"
)

// mostFile bounds each of them in bytes.
const mostFile = 8 << 20

// Folder keeps Files in a folder of a box, which it makes.
func Folder(path string) Files { return folder(path) }

type folder string

func (f folder) Read(name string) ([]byte, error) {
	file, err := os.Open(filepath.Join(string(f), name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, mostFile+1))
	if err == nil && len(b) > mostFile {
		err = fmt.Errorf("%s: more than %d bytes; remove it", file.Name(), mostFile)
	}
	return b, err
}

func (f folder) Write(name string, data []byte) error {
	if err := os.MkdirAll(string(f), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(string(f), name), data, 0o600)
}

func (f folder) Remove(name string) error {
	err := os.Remove(filepath.Join(string(f), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return durable.SyncDir(string(f))
}

// readJSON reads a file into v; false where there is none. A file that does
// not parse is an error, and v may be half filled then.
func readJSON(f Files, name string, v any) (bool, error) {
	b, err := f.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(b) > mostFile {
		return false, fmt.Errorf("%s: more than %d bytes; remove it", name, mostFile)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("%s: %w; remove it, nothing that runs depends on it", name, err)
	}
	return true, nil
}

func writeJSON(f Files, name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return f.Write(name, append(b, '\n'))
}
