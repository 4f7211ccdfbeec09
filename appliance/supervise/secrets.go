// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

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

// generatedName is the list of the secrets that were made, beside them. Compose
// allows no @ in the name of a secret, so that none can have this one.
const generatedName = "@generated.json"

// maxGenerated bounds the list in bytes.
const maxGenerated = 1 << 20

// generated is the list on disk.
type generated struct {
	Format int      `json:"format"`
	Names  []string `json:"names"`
}

// LostSecretError is a secret that was made once and is gone. A new one would
// lock the services out of their data, silently.
type LostSecretError struct {
	Name, Path string
	// Why is what was found in its place.
	Why string
}

func (e *LostSecretError) Error() string {
	return fmt.Sprintf("secret %s is lost: %s %s, and its data was made with it", e.Name, e.Path, e.Why)
}

// SecretsDir is where the secrets of a box lie.
type SecretsDir struct {
	// Path is a folder on the data volume, beside what the secrets open.
	Path string
	// Used says that the data volume holds volumes of services already.
	Used bool
}

// Secrets makes the secrets a stack asks for that were never made and returns
// the file of each. The folder is root's alone (0700) and a file in it 0444,
// so that a container can read what is bound into it whatever its user. A
// secret that was made and is gone is a *LostSecretError, and so is a missing
// one on a used volume without a readable list. Values are never logged and never in
// an error.
func Secrets(dir SecretsDir, want []Generate, random io.Reader) (map[string]string, error) {
	if random == nil {
		random = rand.Reader
	}
	if err := secretsFolder(dir.Path); err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	made, list, err := readGenerated(dir.Path)
	if err != nil {
		return nil, err
	}
	known := list == listRead
	used := dir.Used || list == listDamaged
	// First look at all: where one is lost, nothing new is made either.
	out := map[string]string{}
	var missing []Generate
	for _, s := range want {
		if !filepath.IsLocal(s.Name) || filepath.Base(s.Name) != s.Name || s.Name == generatedName {
			return nil, fmt.Errorf("secret %q: the name is no file name", s.Name)
		}
		path := filepath.Join(dir.Path, s.Name)
		out[s.Name] = path
		st, err := os.Lstat(path)
		switch {
		case err == nil && st.Mode().IsRegular() && st.Size() > 0:
		case err == nil:
			return nil, &LostSecretError{s.Name, path, "is empty or no plain file"}
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("secret %s: %w", s.Name, err)
		case slices.Contains(made, s.Name), !known && used:
			return nil, &LostSecretError{s.Name, path, "does not exist"}
		default:
			missing = append(missing, s)
		}
	}
	for _, s := range missing {
		value, err := password(random, s.Length)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", s.Name, err)
		}
		if err := durable.WriteFile(out[s.Name], value, 0o444); err != nil {
			return nil, fmt.Errorf("secret %s: %w", s.Name, err)
		}
	}
	// The list comes after the files, and before anyone is told of them. A
	// power cut between file and list leaves a file that is not listed: the
	// next start takes it as it is and lists it. The other way round the cut
	// would leave a name without a file, and a box that was never used would
	// hold for ever over a password that nothing was made with.
	all := append([]string{}, made...)
	for _, s := range want {
		all = append(all, s.Name)
	}
	slices.Sort(all)
	if all = slices.Compact(all); known && slices.Equal(all, made) {
		return out, nil
	}
	return out, writeGenerated(dir.Path, all)
}

func secretsFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

type listState int

const (
	listNone listState = iota
	listRead
	listDamaged
)

// readGenerated reads the list. A damaged one names nothing and still says
// that this volume is not fresh.
func readGenerated(dir string) ([]string, listState, error) {
	f, err := os.Open(filepath.Join(dir, generatedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, listNone, nil
	}
	if err != nil {
		return nil, listNone, fmt.Errorf("secrets: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxGenerated+1))
	if err != nil {
		return nil, listNone, fmt.Errorf("secrets: %w", err)
	}
	var g generated
	if len(b) > maxGenerated || json.Unmarshal(b, &g) != nil || g.Format != 1 {
		return nil, listDamaged, nil
	}
	slices.Sort(g.Names)
	return g.Names, listRead, nil
}

func writeGenerated(dir string, names []string) error {
	b, err := json.Marshal(generated{Format: 1, Names: names})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, generatedName), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	return nil
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
