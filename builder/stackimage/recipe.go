// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// Limits of a recipe: far above any stack, far below what could hurt.
const (
	maxRecipeBytes = 256 << 10
	maxLayers      = 64
	maxNames       = 400
	maxContent     = 64 << 10
)

// Recipe is a checked images.yaml.
type Recipe struct {
	// Layers in the order of the file.
	Layers []Layer
	// Images in the order of the file.
	Images []Image

	file string
}

// at is an error at a line of the recipe.
func (r *Recipe) at(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", r.file, line, fmt.Errorf(format, args...))
}

// Layer is one file system layer; images that name the same layer share it.
type Layer struct {
	Name string
	// Packages are Debian packages, exactly these: no dependency is added.
	Packages []string
	// Without are packages that others of the image depend on and that are
	// left out, with the reason.
	Without map[string]string
	// Drop are absolute paths, globs per component, that the packages bring
	// and the layer leaves out with everything below them.
	Drop []string
	// Program is a Go program to build, or nil.
	Program *Program
	// Entries are files, folders and links by absolute path.
	Entries map[string]Entry

	line int
}

// Program is a Go main package and where its binary goes.
type Program struct {
	// Import is a path relative to the module's root, "./web".
	Import string
	// Out is the absolute path of the binary, mode 0755.
	Out string
	// Set are string variables for the linker, "main.version" -> value.
	Set map[string]string
}

// Entry is one file, folder or symbolic link that the recipe writes itself.
type Entry struct {
	// Mode holds type and permission bits.
	Mode fs.FileMode
	UID  int
	GID  int
	// Content of a file, or the target of a link.
	Content string
}

// Image is one image to make.
type Image struct {
	// Ref is its full reference with a tag.
	Ref string
	// Layers by name, lowest first.
	Layers []string
	Config Config

	line int
}

// Config is the part of an image's configuration that a recipe sets.
type Config struct {
	Entrypoint []string
	Cmd        []string
	User       string
	Env        []string
	Ports      []string
	Workdir    string
	Labels     map[string]string
	StopSignal string
}

var (
	layerName   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,99}$`)
	goVariable  = regexp.MustCompile(`^[A-Za-z0-9_./-]+\.[A-Za-z_][A-Za-z0-9_]*$`)
	goImport    = regexp.MustCompile(`^\.(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$`)
	portSpec    = regexp.MustCompile(`^[0-9]{1,5}/(tcp|udp)$`)
	signalName  = regexp.MustCompile(`^SIG[A-Z0-9+]{2,10}$`)
	versionText = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,59}$`)
	// linkerSafe keeps a value one word on the linker's command line.
	linkerSafe = regexp.MustCompile(`^[0-9A-Za-z._:/@+-]{0,200}$`)
)

// ReadRecipe reads and checks a recipe file; see ParseRecipe.
func ReadRecipe(file, version string) (*Recipe, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readBounded(f, maxRecipeBytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return ParseRecipe(file, data, version)
}

// ParseRecipe checks the text of a recipe and puts version where it says
// ${version} (in references, linker variables and labels). Errors name the
// file and the line.
func ParseRecipe(file string, data []byte, version string) (*Recipe, error) {
	if !versionText.MatchString(version) {
		return nil, fmt.Errorf("%q cannot be the version of an image: use letters, digits, dots, dashes and underscores", version)
	}
	if len(data) > maxRecipeBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", file, maxRecipeBytes)
	}
	p := &parser{file: file, version: version}
	r, err := p.recipe(data)
	if err != nil {
		return nil, err
	}
	r.file = file
	return r, r.check()
}

// check holds the parts against each other.
func (r *Recipe) check() error {
	used := map[string]bool{}
	refs := map[string]bool{}
	for _, im := range r.Images {
		if refs[im.Ref] {
			return r.at(im.line, "image %s is given twice", im.Ref)
		}
		refs[im.Ref] = true
		if _, err := name.NewTag(im.Ref, name.StrictValidation); err != nil {
			return r.at(im.line, "%s is no full image reference with a tag: %v", im.Ref, err)
		}
		owner := map[string]string{}
		for i, l := range im.Layers {
			layer := r.layer(l)
			if layer == nil {
				return r.at(im.line, "image %s names layer %q, which is not under layers", im.Ref, l)
			}
			if slices.Contains(im.Layers[:i], l) {
				return r.at(im.line, "image %s names layer %q twice", im.Ref, l)
			}
			used[l] = true
			for _, pkg := range layer.Packages {
				if o, ok := owner[pkg]; ok {
					return r.at(layer.line, "package %s is in layer %s and in layer %s of the same image", pkg, o, l)
				}
				owner[pkg] = l
			}
		}
	}
	for _, l := range r.Layers {
		if !used[l.Name] {
			return r.at(l.line, "layer %q is in no image: remove it", l.Name)
		}
		if len(l.Packages) == 0 && len(l.Drop)+len(l.Without) > 0 {
			return r.at(l.line, "layer %q has drop or without, but no packages", l.Name)
		}
	}
	return nil
}

func (r *Recipe) layer(name string) *Layer {
	for i := range r.Layers {
		if r.Layers[i].Name == name {
			return &r.Layers[i]
		}
	}
	return nil
}

// packages are the names of all layers, sorted.
func (r *Recipe) packages() []string {
	var names []string
	for _, l := range r.Layers {
		names = append(names, l.Packages...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// cleanPath holds a path of a recipe to its one spelling.
func cleanPath(s string) error {
	if !strings.HasPrefix(s, "/") || s == "/" || path.Clean(s) != s || len(s) > 255 || strings.ContainsAny(s, "\x00\n") {
		return fmt.Errorf("%q is no clean absolute path", s)
	}
	if m := merged(s); m != s {
		return fmt.Errorf("write %s instead of %s: /bin, /sbin, /lib and /lib64 are links", m, s)
	}
	return nil
}
