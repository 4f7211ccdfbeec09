// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var twoSecrets = []Generate{{Name: "db-password", Length: 32}, {Name: "key", Length: 16}}

// madeSecrets is a folder with both secrets made.
func madeSecrets(t *testing.T) (dir SecretsDir, files map[string]string) {
	t.Helper()
	dir.Path = filepath.Join(t.TempDir(), "secrets")
	files, err := Secrets(dir, twoSecrets, nil)
	if err != nil {
		t.Fatal(err)
	}
	return dir, files
}

func contents(t *testing.T, files map[string]string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(b)
	}
	return out
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestSecretsAreMadeOnce(t *testing.T) {
	dir, files := madeSecrets(t)
	first := contents(t, files)
	if p := first["db-password"]; len(p) != 32 || strings.Trim(p, secretAlphabet) != "" {
		t.Errorf("%q", p)
	}
	for path, mode := range map[string]os.FileMode{dir.Path: 0o700, files["key"]: 0o444, filepath.Join(dir.Path, generatedName): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want mode %o", path, st, err, mode)
		}
	}
	dir.Used = true
	// A newer stack asks for one more; the rest stays.
	files, err := Secrets(dir, append([]Generate{{Name: "new", Length: 8}}, twoSecrets...), nil)
	if err != nil {
		t.Fatal(err)
	}
	again := contents(t, files)
	if again["db-password"] != first["db-password"] || again["key"] != first["key"] || len(again["new"]) != 8 {
		t.Errorf("first %v, then %v", first, again)
	}
	// An older one that does not ask for it does not make it forgotten.
	if _, err := Secrets(dir, twoSecrets, nil); err != nil {
		t.Fatal(err)
	}
	remove(t, files["new"])
	var lost *LostSecretError
	if _, err := Secrets(dir, []Generate{{Name: "new", Length: 8}}, nil); !errors.As(err, &lost) || lost.Name != "new" {
		t.Errorf("a secret of a newer stack: %v", err)
	}
}

func TestLostSecretIsNotMadeAgain(t *testing.T) {
	list := func(dir SecretsDir) string { return filepath.Join(dir.Path, generatedName) }
	for _, c := range []struct {
		name, why string
		harm      func(t *testing.T, dir *SecretsDir, files map[string]string)
	}{
		{"removed", "does not exist", func(t *testing.T, _ *SecretsDir, files map[string]string) { remove(t, files["key"]) }},
		{"emptied", "is empty", func(t *testing.T, _ *SecretsDir, files map[string]string) {
			remove(t, files["key"])
			if err := os.WriteFile(files["key"], nil, 0o444); err != nil {
				t.Fatal(err)
			}
		}},
		{"a link", "no plain file", func(t *testing.T, _ *SecretsDir, files map[string]string) {
			remove(t, files["key"])
			if err := os.Symlink(files["db-password"], files["key"]); err != nil {
				t.Fatal(err)
			}
		}},
		{"the list went too", "does not exist", func(t *testing.T, dir *SecretsDir, files map[string]string) {
			remove(t, files["key"])
			remove(t, list(*dir))
			dir.Used = true
		}},
		{"the list is damaged", "does not exist", func(t *testing.T, dir *SecretsDir, files map[string]string) {
			remove(t, files["key"])
			if err := os.WriteFile(list(*dir), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, files := madeSecrets(t)
			c.harm(t, &dir, files)
			_, err := Secrets(dir, append(twoSecrets[:2:2], Generate{Name: "another", Length: 8}), nil)
			var lost *LostSecretError
			if !errors.As(err, &lost) || lost.Name != "key" || lost.Path != files["key"] || !strings.Contains(lost.Why, c.why) {
				t.Fatalf("%v", err)
			}
			if _, err := os.Stat(filepath.Join(dir.Path, "another")); !os.IsNotExist(err) {
				t.Errorf("another secret was made meanwhile: %v", err)
			}
			// What the remedy says works.
			os.Remove(files["key"])
			if err := os.WriteFile(files["key"], []byte("from a backup"), 0o444); err != nil {
				t.Fatal(err)
			}
			if files, err = Secrets(dir, twoSecrets, nil); err != nil || contents(t, files)["key"] != "from a backup" {
				t.Errorf("after the file came back: %v", err)
			}
		})
	}
}

// TestSecretsAfterACut ends the making in each place a power cut can: what is
// there is kept, the rest is made, nothing is called lost.
func TestSecretsAfterACut(t *testing.T) {
	for _, there := range [][]string{nil, {"db-password"}, {"db-password", "key"}} {
		dir, files := madeSecrets(t)
		first := contents(t, files)
		remove(t, filepath.Join(dir.Path, generatedName))
		for _, name := range []string{"db-password", "key"}[len(there):] {
			remove(t, files[name])
		}
		files, err := Secrets(dir, twoSecrets, nil)
		if err != nil {
			t.Fatalf("%v were made: %v", there, err)
		}
		again := contents(t, files)
		for _, name := range there {
			if again[name] != first[name] {
				t.Errorf("%s was made again", name)
			}
		}
		remove(t, files["key"])
		var lost *LostSecretError
		if _, err := Secrets(dir, twoSecrets, nil); !errors.As(err, &lost) {
			t.Errorf("the list was not made up for: %v", err)
		}
	}
}

// TestStackWithoutSecrets: its volumes are no reason to refuse a later
// stack's first secret.
func TestStackWithoutSecrets(t *testing.T) {
	dir := SecretsDir{Path: filepath.Join(t.TempDir(), "secrets")}
	if files, err := Secrets(dir, nil, nil); err != nil || len(files) != 0 {
		t.Fatalf("%v, %v", files, err)
	}
	dir.Used = true
	if _, err := Secrets(dir, twoSecrets, nil); err != nil {
		t.Error(err)
	}
}

func TestSecretNames(t *testing.T) {
	dir := SecretsDir{Path: filepath.Join(t.TempDir(), "secrets")}
	for _, name := range []string{"../x", "a/b", "", generatedName} {
		if _, err := Secrets(dir, []Generate{{Name: name, Length: 8}}, nil); err == nil {
			t.Errorf("the name %q was taken", name)
		}
	}
}

// Bytes beyond the last whole multiple are drawn again, not folded.
func TestPasswordIsEven(t *testing.T) {
	got, err := password(bytes.NewReader([]byte{255, 248, 0, 61, 62}), 3)
	if err != nil || string(got) != "A9A" {
		t.Errorf("%q %v", got, err)
	}
}
