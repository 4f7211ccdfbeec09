// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/holdfast/holdfast/images/durable"
)

const (
	// storeProject is the engine's store, on the volume state. Numbers this
	// high keep out of the way of what Docker's own driver counts up from 1.
	storeProject = 1 << 20
	// firstProject is the first volume's; they only grow, so that a number of
	// a volume that is gone, with files of it left somewhere, is no one else's.
	firstProject = storeProject + 1
	lastProject  = 1 << 30

	maxKept    = 1 << 20 // bytes of the file
	maxVolumes = 10_000
)

// ids are the projects of volumes, by the paths of their folders. A number is
// given out in turn, never made from a name: two names could make the same.
type ids struct {
	// Next is the number that nobody had yet.
	Next    uint32            `json:"next"`
	Volumes map[string]uint32 `json:"volumes"`
}

// parseIDs refuses what it did not write.
func parseIDs(data []byte) (*ids, error) {
	var i ids
	if len(data) > maxKept {
		return nil, fmt.Errorf("%d bytes, more than %d", len(data), maxKept)
	}
	if err := json.Unmarshal(data, &i); err != nil {
		return nil, err
	}
	if i.Next < firstProject || i.Next > lastProject || len(i.Volumes) > maxVolumes {
		return nil, fmt.Errorf("next is %d, with %d volumes", i.Next, len(i.Volumes))
	}
	seen := map[uint32]string{}
	for path, id := range i.Volumes {
		if id < firstProject || id >= i.Next {
			return nil, fmt.Errorf("%s has project %d, next is %d", path, id, i.Next)
		}
		if seen[id] != "" {
			return nil, fmt.Errorf("%s and %s both have project %d", seen[id], path, id)
		}
		seen[id] = path
	}
	if i.Volumes == nil {
		i.Volumes = map[string]uint32{}
	}
	return &i, nil
}

// readIDs reads what is kept; a file that is not there, or not ours, begins
// anew: what the folders say of themselves is then taken over one by one.
func readIDs(file string) (*ids, error) {
	fresh := &ids{Next: firstProject, Volumes: map[string]uint32{}}
	if file == "" {
		return fresh, nil
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, err
	}
	if i, err := parseIDs(data); err == nil {
		return i, nil
	}
	return fresh, nil
}

func (i *ids) write(file string) error {
	if file == "" {
		return nil
	}
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(file, append(data, '\n'), 0o600)
}

// give gives a folder its number: the kept one, else the one the folder has if
// nobody else does, else the next. changed says that the list must be kept
// before the number is used. used tells whether files of a number are about.
func (i *ids) give(path string, has uint32, used func(uint32) (bool, error)) (id uint32, changed bool, err error) {
	if id, ok := i.Volumes[path]; ok {
		return id, false, nil
	}
	taken := map[uint32]bool{}
	for _, id := range i.Volumes {
		taken[id] = true
	}
	if has >= firstProject && has < lastProject && !taken[has] {
		i.Volumes[path], i.Next = has, max(i.Next, has+1)
		return has, true, nil
	}
	for i.Next < lastProject {
		id := i.Next
		i.Next++
		inUse, err := used(id)
		if err != nil {
			return 0, false, err
		}
		if !inUse && !taken[id] {
			i.Volumes[path] = id
			return id, true, nil
		}
	}
	return 0, false, fmt.Errorf("no project numbers are left")
}
