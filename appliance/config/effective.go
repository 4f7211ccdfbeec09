// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/appliance/config/platform"
	"github.com/holdfast/holdfast/images/durable"
)

// Source is where a document comes from.
type Source string

// The sources, lowest precedence first: a later one replaces whole top-level
// keys of an earlier one.
const (
	// FromDefault is no document: nobody said anything.
	FromDefault Source = "default"
	// FromEC2Key is the key pair that was named when the instance was
	// launched; it counts where nothing else says who may log in.
	FromEC2Key Source = "ec2-key"
	// FromFile is \EFI\holdfast\config.yaml on the EFI system partition.
	FromFile Source = "file"
	// FromOVF is the OVF environment, or VMware's guestinfo.
	FromOVF Source = "ovf"
	// FromEC2 and FromGCE are user-data of the metadata service.
	FromEC2 Source = "ec2"
	FromGCE Source = "gce"
	// FromSMBIOS is the system credential holdfast.config.
	FromSMBIOS Source = "smbios"
)

// What became of the document of a source.
const (
	// Applied: its keys count.
	Applied = "applied"
	// Refused: it has problems; nothing of it is used.
	Refused = "refused"
	// Absent: there is none.
	Absent = "absent"
	// Unreachable: whether there is one could not be learnt.
	Unreachable = "unreachable"
	// Kept: the last good document of this source is used in its place.
	Kept = "kept"
	// Waiting: it needs the network, which is not up yet.
	Waiting = "waiting"
)

// SourceState is what became of one document.
type SourceState struct {
	Source Source `json:"source"`
	// Where is the place in the source, for people.
	Where string `json:"where"`
	// State is Applied, Refused, Absent, Unreachable, Kept or Waiting.
	State string `json:"state"`
	// Why says, where State is Kept, what became of the newest document:
	// Refused, Absent, Unreachable or Waiting.
	Why string `json:"why,omitempty"`
	// Text is why it is unreachable, or a note.
	Text string `json:"text,omitempty"`
	// Problems are why the newest document is refused.
	Problems []Problem `json:"problems,omitempty"`
	// At is when the document in use was read, or else when it was tried.
	At time.Time `json:"at"`
}

// Instance is what a cloud calls this machine; for people, all may be empty.
type Instance struct {
	ID     string `json:"id,omitempty"`
	Name   string `json:"name,omitempty"`
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
}

// Effective is the configuration that counts, and how it came about.
type Effective struct {
	Config Config `json:"config"`
	// Origin gives the source of each top-level key.
	Origin map[string]Source `json:"origin"`
	// Sources are all that were looked at, lowest precedence first.
	Sources  []SourceState     `json:"sources"`
	Platform platform.Platform `json:"platform"`
	Instance Instance          `json:"instance"`
	// At is when this was put together, by the box's clock.
	At time.Time `json:"at"`
	// Failed is why it could not be written down. The rest holds all the
	// same; but Load gives what was there before.
	Failed error `json:"-"`
}

// Redacted is e without its secrets.
func (e Effective) Redacted() Effective {
	e.Config = e.Config.Redacted()
	return e
}

// Path is the file of the effective configuration, below the root given to
// Load. It holds secrets and is for root only.
const Path = "run/holdfast/config.json"

// maxFile bounds that file in bytes. Documents are at most MaxDocument, a few
// of them are merged, and problems are bounded.
const maxFile = 4 << 20

// Load reads the effective configuration of this boot below root ("" on a
// box). Before Local has run the error is fs.ErrNotExist.
func Load(root string) (Effective, error) {
	name := filepath.Join("/", root, Path)
	data, err := readBounded(name, maxFile)
	if err != nil {
		return Effective{}, err
	}
	var e Effective
	if err := json.Unmarshal(data, &e); err != nil {
		return Effective{}, fmt.Errorf("%s is damaged: %w; reboot to have it written anew", name, err)
	}
	return e, nil
}

// Save writes what Load reads.
func (e Effective) Save(root string) error {
	name := filepath.Join("/", root, Path)
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(name, append(data, '\n'), 0o600)
}

// readBounded reads a whole file of at most limit bytes.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errors.New("more than " + kib(limit))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

func kib(n int64) string { return fmt.Sprintf("%d KiB", n>>10) }
