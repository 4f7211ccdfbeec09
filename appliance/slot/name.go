// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast/holdfast/images/gpt"
)

// Label is the partition label of a slot, "A" or "B".
func Label(letter string) string { return "root-" + strings.ToLower(letter) }

// NameSlot gives the partition of the other slot the id by which the kernel
// image of a root hash finds it: its first half (as images/layout has it for
// slot A). It is called once the slot holds that root; a slot that still has
// the id of what was there before is booted by nothing.
func (r Root) NameSlot(root, letter, hash string) (err error) {
	if letter == r.Letter || letter != "A" && letter != "B" {
		return fmt.Errorf("slot %q is not the other slot; %s runs", letter, r.Letter)
	}
	if !hashShape.MatchString(hash) {
		return fmt.Errorf("%q is no root hash, want 64 hex digits", hash)
	}
	raw, err := hex.DecodeString(hash)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join("/", root, "dev", r.Disk), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if err := gpt.SetUUID(f, size, Label(letter), gpt.GUID(raw[:16])); err != nil {
		return fmt.Errorf("partition table of /dev/%s: %w", r.Disk, err)
	}
	return nil
}
