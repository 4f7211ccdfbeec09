// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing/fstest"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/compose/release"
)

// Edit replaces Old, which a file of the stack must hold exactly once.
type Edit struct{ File, Old, New string }

// Spec is one test release.
type Spec struct {
	// Version of the release, whose name is "demo".
	Version string
	// Demo is the demo stack it is made from, "1.0.0" or "1.1.0".
	Demo string
	// Edits of the stack.
	Edits []Edit
	// Variant, when not empty, makes the root another one: it is the content
	// of /usr/share/holdfast/variant. Releases with the same OS share a root.
	Variant string
	// Files are more files of the root, by path without leading slash; those
	// in bin folders are executable.
	Files map[string]string
	// Cmdline is added to the kernel command line.
	Cmdline []string
	// Engine, when not empty, is the name of the engine in the root.
	Engine string
	// Gate of the release; zero fields are the product's defaults.
	Gate release.Gate
	// Epoch and MinFrom as in a release's description.
	Epoch   int
	MinFrom string
}

// Header is the HTTP header in which each test release names its version.
const Header = "X-Release"

// common are edits that every test release has: it says in each answer which
// release gave it.
func (s Spec) common() []Edit {
	return []Edit{{"edge/nginx.conf", "    server_tokens off;\n", "    server_tokens off;\n    add_header " + Header + " \"" + s.Version + "\" always;\n"}}
}

// stack writes the release's stack folder to dir, which is made.
func (s Spec) stack(demos, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(demos, s.Demo))); err != nil {
		return err
	}
	for _, e := range append(s.common(), s.Edits...) {
		name := filepath.Join(dir, e.File)
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if n := bytes.Count(text, []byte(e.Old)); n != 1 {
			return fmt.Errorf("release %s: %s of demo %s holds %q %d times, not once: mend the edit", s.Version, e.File, s.Demo, e.Old, n)
		}
		if err := os.WriteFile(name, bytes.Replace(text, []byte(e.Old), []byte(e.New), 1), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// system is the release's operating system.
func (s Spec) system(o builder.OS) builder.OS {
	add := fstest.MapFS{}
	modes := map[string]fs.FileMode{}
	for name, mode := range o.Modes {
		modes[name] = mode
	}
	put := func(name, text string) {
		add[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
		if strings.Contains(name, "bin/") {
			modes[name] = 0o755
		}
	}
	for name, text := range s.Files {
		put(name, text)
	}
	if s.Variant != "" {
		put("usr/share/holdfast/variant", s.Variant+"\n")
	}
	o.Engine = s.Engine
	o.Files, o.Modes = over{add, o.Files}, modes
	o.Cmdline = append(append([]string{}, o.Cmdline...), s.Cmdline...)
	return o
}

// over is a file system with more files on top.
type over struct {
	top  fstest.MapFS
	base fs.FS
}

func (o over) Open(name string) (fs.File, error) {
	if f, ok := o.top[name]; ok && f.Mode.IsRegular() {
		return o.top.Open(name)
	}
	if _, err := fs.Stat(o.base, name); err != nil {
		return o.top.Open(name)
	}
	return o.base.Open(name)
}

// ReadDir joins both: fs.WalkDir must see each file once.
func (o over) ReadDir(name string) ([]fs.DirEntry, error) {
	all := map[string]fs.DirEntry{}
	below, errBelow := fs.ReadDir(o.base, name)
	above, errAbove := o.top.ReadDir(name)
	if errBelow != nil && errAbove != nil {
		return nil, errBelow
	}
	for _, e := range append(below, above...) {
		all[e.Name()] = e
	}
	return sorted(all), nil
}
