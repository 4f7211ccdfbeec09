// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/images/durable"
)

// WriteFiles makes the files of a stack that containers bind and the stack
// folder does not hold as they must be.
func WriteFiles(files []File, chown func(path string, uid, gid int) error) error {
	if chown == nil {
		chown = os.Chown
	}
	for _, f := range files {
		dir := filepath.Dir(f.Path)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		content := f.Content
		if f.From != "" {
			b, err := os.ReadFile(f.From)
			if err != nil {
				return err
			}
			content = b
		}
		// An unchanged file is left alone: replacing it would cut a running
		// container's bind off from the name.
		if old, err := os.ReadFile(f.Path); err == nil && string(old) == string(content) {
			continue
		}
		// The owner is set while only root can reach the name.
		staged := f.Path + ".new"
		if err := durable.WriteFile(staged, content, f.Mode); err != nil {
			return err
		}
		if err := chown(staged, f.UID, f.GID); err != nil {
			return err
		}
		if err := durable.Rename(staged, f.Path); err != nil {
			return err
		}
	}
	return nil
}
