// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/images/durable"
)

// keptDir holds the last good document of each source, for root only.
const keptDir = "/var/lib/holdfast/config"

// keptFormat is the format this package writes and the only one it reads.
const keptFormat = 1

// maxKept bounds one kept file in bytes: the largest document as base64.
const maxKept = 1 << 20

// record is a kept document.
type record struct {
	Format int    `json:"format"`
	Source Source `json:"source"`
	Where  string `json:"where"`
	// At is when this document was first seen.
	At time.Time `json:"at"`
	// Machine is the SMBIOS UUID of the machine that was given the document.
	// A copy of the disk in another machine must not take its address.
	Machine string `json:"machine"`
	Data    []byte `json:"data"`
}

func keptPath(env Env, name string) string {
	return filepath.Join(env.path(keptDir), name+".json")
}

// loadKept gives nil where nothing is kept.
func loadKept(env Env, name string) (*record, error) {
	data, err := readBounded(keptPath(env, name), maxKept)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the kept document can't be read: %w", err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil || r.Format != keptFormat {
		return nil, fmt.Errorf("the kept document %s is damaged, or of another version; it is replaced by the next good one", keptPath(env, name))
	}
	return &r, nil
}

// storeKept writes r unless old is the same: a box that is rebooted daily for
// years need not write.
func storeKept(env Env, name string, old *record, r record) error {
	if old != nil && old.Where == r.Where && bytes.Equal(old.Data, r.Data) {
		return nil
	}
	r.Format = keptFormat
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	dir := env.path(keptDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the configuration can't be kept for later boots: %w", err)
	}
	if err := durable.WriteFile(keptPath(env, name), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("the configuration can't be kept for later boots: %w", err)
	}
	// The folder's own name too, or a cut loses the file with it.
	return durable.SyncDir(filepath.Dir(dir))
}

func forgetKept(env Env, name string) error {
	err := os.Remove(keptPath(env, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the configuration that was taken away is still kept: %w", err)
	}
	return durable.SyncDir(env.path(keptDir))
}
