// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/images/durable"
)

const rewriteFactory = "write the factory partition again from the disk image of this release, then reboot"

// open opens and verifies the factory's release. Where that fails it takes
// the kept copy, verified the same way, and says so: it names the images by
// digest, and what the engine has under a digest is what was signed.
func (f Factory) open(trust []*x509.Certificate) (*release.Release, []status.Condition, error) {
	read := &reading{fsys: os.DirFS(f.Dir), files: map[string][]byte{}}
	rel, cause := release.Open(read, trust)
	files := read.files
	read.files = nil // the images are streamed through it next
	if cause == nil {
		if err := f.keep(files); err != nil {
			return nil, nil, held("release-not-kept", "make room on the state volume, then systemctl restart holdfast", err)
		}
		return rel, nil, nil
	}
	code := "factory-release-untrusted"
	if _, err := os.Stat(filepath.Join(f.Dir, "index.json")); errors.Is(err, fs.ErrNotExist) {
		code, cause = "factory-missing", fmt.Errorf("no release lies on the factory partition (%s); see systemctl status holdfast-factory", f.Dir)
	}
	rel, err := release.Open(os.DirFS(f.Kept), trust)
	if err != nil {
		return nil, nil, held(code, rewriteFactory+"; nothing of the stack was started", cause)
	}
	return rel, []status.Condition{{Code: code, Severity: "warning", Remedy: rewriteFactory,
		Text: fmt.Sprintf("the factory partition cannot be used, the release kept on state runs: %v", cause)}}, nil
}

// keep stores what Open read, under a name of its own first.
func (f Factory) keep(files map[string][]byte) error {
	same := true
	for name, content := range files {
		old, err := os.ReadFile(filepath.Join(f.Kept, name))
		same = same && err == nil && bytes.Equal(old, content)
	}
	if same {
		return nil
	}
	tmp := f.Kept + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(tmp, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := durable.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	// Between the two there is no copy; the factory, just read, is one.
	if err := os.RemoveAll(f.Kept); err != nil {
		return err
	}
	return durable.Rename(tmp, f.Kept)
}

// reading remembers each file that is read through it.
type reading struct {
	fsys  fs.FS
	files map[string][]byte
}

func (r *reading) Open(name string) (fs.File, error) {
	f, err := r.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	return &readFile{File: f, to: r, name: name}, nil
}

type readFile struct {
	fs.File
	to   *reading
	name string
}

func (f *readFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if f.to.files != nil {
		f.to.files[f.name] = append(f.to.files[f.name], p[:n]...)
	}
	return n, err
}
