// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/images/durable"
)

// secretAlphabet is what generated passwords are made of: safe in URLs,
// connection strings and shells.
const secretAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// Generate asks for one secret that is made on the box.
type Generate struct {
	Name string
	// Length is the number of characters.
	Length int
}

// Secrets makes the secrets a stack asks for that do not exist yet and
// returns the file of each. They are made once per box, in dir, which lies on
// the data volume beside what they open; the folder is root's alone (0700)
// and a file in it 0444, so that a container can read what is bound into it
// whatever its user. Values are never logged and never in an error.
func Secrets(dir string, want []Generate, random io.Reader) (map[string]string, error) {
	if random == nil {
		random = rand.Reader
	}
	out := map[string]string{}
	if len(want) == 0 {
		return out, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	for _, s := range want {
		if !filepath.IsLocal(s.Name) || filepath.Base(s.Name) != s.Name {
			return nil, fmt.Errorf("secret %q: the name is no file name", s.Name)
		}
		path := filepath.Join(dir, s.Name)
		out[s.Name] = path
		st, err := os.Lstat(path)
		if err == nil && st.Mode().IsRegular() && st.Size() > 0 {
			continue
		}
		if err == nil {
			// Making a new one would lock the services out of their data.
			return nil, fmt.Errorf("secret %s: %s is empty or no plain file: restore it from a backup", s.Name, path)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("secret %s: %w", s.Name, err)
		}
		value, err := password(random, s.Length)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", s.Name, err)
		}
		if err := durable.WriteFile(path, value, 0o444); err != nil {
			return nil, fmt.Errorf("secret %s: %w", s.Name, err)
		}
	}
	return out, nil
}

// password draws n characters, each equally likely: a byte beyond the last
// whole multiple of the alphabet is drawn again.
func password(random io.Reader, n int) ([]byte, error) {
	const most = 256 / len(secretAlphabet) * len(secretAlphabet)
	out := make([]byte, 0, n)
	one := make([]byte, 1)
	for len(out) < n {
		if _, err := io.ReadFull(random, one); err != nil {
			return nil, err
		}
		if int(one[0]) < most {
			out = append(out, secretAlphabet[int(one[0])%len(secretAlphabet)])
		}
	}
	return out, nil
}

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
