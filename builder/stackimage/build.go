// SPDX-License-Identifier: Apache-2.0

// Package stackimage makes a stack's container images (linux/amd64) from a
// recipe, Debian packages and Go programs, into an OCI layout folder: the same
// inputs give the same digests on any host. It needs no root, no container
// engine, and no network beyond what Options.Packages does to get packages.
//
// A layer of packages is the merged content of exactly the packages named,
// without maintainer scripts, documentation or translations, and with a dpkg
// status per package so that scanners see what is inside. The package refuses
// a recipe with keys it does not know, packages whose dependencies are neither
// there nor excused in writing, and programs whose libraries are missing.
package stackimage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/durable"
)

// Options are one build.
type Options struct {
	// Recipe is the path of images.yaml.
	Recipe string
	// Version replaces ${version} in the recipe.
	Version string
	// Layout is the OCI layout folder to make. It appears whole, replacing an
	// older one, or stays as it was.
	Layout string
	// Cache is the folder for finished layers; two builds cannot use one at
	// the same time.
	Cache string
	// Epoch, in seconds since 1970 UTC, is the newest time a file may have
	// and the time of everything made here. Digests depend on it; 0 makes all
	// times 1970 and keeps digests over relocks that change no package.
	Epoch int64
	// Packages answers with a set that has at least the names (sorted), and a
	// folder that holds each of those as <sha256>.deb. It is asked once, for
	// all layers, and needs to resolve no dependencies: the recipe names all.
	Packages func(ctx context.Context, names []string) (set lock.PackageSet, dir string, err error)
	// Go is how programs are built.
	Go Go
	// Progress, when not nil, hears of each finished piece; it is called from
	// several goroutines.
	Progress func(Piece)
}

// Piece is one piece of finished work, for people to read.
type Piece struct {
	// Name is "packages", "program ./web", "layer base" or "layout".
	Name string
	Took time.Duration
	// Bytes of what was made: the compressed size of a layer, the whole size
	// of the layout, 0 where it has none.
	Bytes int64
	// Cached is true when it was there already.
	Cached bool
}

// Result is a finished build.
type Result struct {
	// Layout is Options.Layout.
	Layout string
	// Images are sorted by reference.
	Images []Built
	// Packages is what Options.Packages answered, cut to what the recipe
	// names: everything of Debian that is in the images.
	Packages lock.PackageSet
	// Size is the sum of all blobs, each counted once, in bytes.
	Size int64
	// Unchanged is true when the folder already held these very images.
	Unchanged bool
}

// Built is one image of a result.
type Built struct {
	Ref string
	// Digest of the image manifest, "sha256:<64 hex>".
	Digest string
	// Size of manifest, config and layers in bytes.
	Size int64
	// Packages in the image, sorted by name: what an SBOM lists.
	Packages []Package
}

// Package is a Debian package in an image.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
	SHA256  string `json:"sha256"`
}

// work is the state of one build.
type work struct {
	Options
	recipe *Recipe
	stage  string
	set    lock.PackageSet
	debs   string
}

// Build makes the images of a recipe. After an error, also one of a cancelled
// ctx, Layout is as it was and nothing is left but the cache.
func Build(ctx context.Context, o Options) (*Result, error) {
	recipe, err := ReadRecipe(o.Recipe, o.Version)
	if err != nil {
		return nil, err
	}
	// The go command runs in another folder.
	if o.Cache, err = filepath.Abs(o.Cache); err != nil {
		return nil, err
	}
	for _, d := range []string{"blobs", "layers"} {
		if err := os.MkdirAll(filepath.Join(o.Cache, d), 0o755); err != nil {
			return nil, err
		}
	}
	unlock, err := lockFolder(o.Cache)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// What a killed build left lies in the stage; the lock says it is ours.
	stage := filepath.Join(o.Cache, "stage")
	if err := os.RemoveAll(stage); err != nil {
		return nil, err
	}
	if err := os.Mkdir(stage, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(stage)
	w := &work{Options: o, recipe: recipe, stage: stage}
	binaries, err := w.inputs(ctx)
	if err != nil {
		return nil, err
	}
	records, err := w.layers(ctx, binaries)
	if err != nil {
		return nil, err
	}
	if err := w.check(records); err != nil {
		return nil, err
	}
	return w.layout(ctx, records)
}

// inputs gets the packages while the programs are built.
func (w *work) inputs(ctx context.Context) (binaries map[string]string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.fetch(ctx); err != nil {
			cancel(err)
		}
	})
	binaries = map[string]string{}
	for _, l := range w.recipe.Layers {
		if l.Program == nil || ctx.Err() != nil {
			continue
		}
		start := time.Now()
		out := filepath.Join(w.stage, "program-"+l.Name)
		if err := w.Go.build(ctx, *l.Program, out); err != nil {
			cancel(w.recipe.at(l.line, "%w", err))
			break
		}
		binaries[l.Name] = out
		w.done(Piece{Name: "program " + l.Program.Import, Took: time.Since(start), Bytes: sizeOf(out)})
	}
	wg.Wait()
	return binaries, context.Cause(ctx)
}

func (w *work) fetch(ctx context.Context) error {
	names := w.recipe.packages()
	if len(names) == 0 {
		return nil
	}
	if w.Packages == nil {
		return errors.New("the recipe names Debian packages, but nothing was given that gets them")
	}
	start := time.Now()
	set, dir, err := w.Packages(ctx, names)
	if err != nil {
		return err
	}
	w.debs = dir
	w.set = lock.PackageSet{Suite: set.Suite, Wanted: names}
	var total int64
	for _, n := range names {
		i := slices.IndexFunc(set.Packages, func(p lock.Package) bool { return p.Name == n })
		if i < 0 {
			return fmt.Errorf("%s: package %s was not resolved", w.Recipe, n)
		}
		w.set.Packages = append(w.set.Packages, set.Packages[i])
		total += set.Packages[i].Size
	}
	w.done(Piece{Name: "packages", Took: time.Since(start), Bytes: total})
	return nil
}

// layers makes each layer that the cache does not have.
func (w *work) layers(ctx context.Context, binaries map[string]string) (map[string]*record, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	records := map[string]*record{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(2, runtime.NumCPU()))
	for _, l := range w.recipe.Layers {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			rec, err := w.layer(ctx, l, binaries[l.Name])
			if err != nil {
				cancel(w.recipe.at(l.line, "layer %s: %w", l.Name, err))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			records[l.Name] = rec
		})
	}
	wg.Wait()
	return records, context.Cause(ctx)
}

func (w *work) layer(ctx context.Context, l Layer, binary string) (*record, error) {
	start := time.Now()
	s := source{layer: l, dir: w.debs, binary: binary, epoch: w.Epoch}
	for _, p := range w.set.Packages {
		if slices.Contains(l.Packages, p.Name) {
			s.debs = append(s.debs, p)
		}
	}
	key, err := s.key()
	if err != nil {
		return nil, err
	}
	if rec := w.cached(key); rec != nil {
		w.done(Piece{Name: "layer " + l.Name, Took: time.Since(start), Bytes: rec.Size, Cached: true})
		return rec, nil
	}
	made := filepath.Join(w.stage, "layer-"+l.Name)
	rec, err := s.make(ctx, w.stage, made)
	if err != nil {
		return nil, err
	}
	// Blob before record: a record is believed, so it must come last.
	if err := durable.Rename(made, w.blob(rec.Digest)); err != nil {
		return nil, err
	}
	if err := w.remember(key, rec); err != nil {
		return nil, err
	}
	w.done(Piece{Name: "layer " + l.Name, Took: time.Since(start), Bytes: rec.Size})
	return rec, nil
}

// check holds every image's packages and libraries against each other.
func (w *work) check(records map[string]*record) error {
	excused := map[string]bool{}
	for _, im := range w.recipe.Images {
		if err := checkImage(w.recipe, im, records, excused); err != nil {
			return err
		}
	}
	for _, l := range w.recipe.Layers {
		for _, p := range sortedKeys(l.Without) {
			if !excused[l.Name+" "+p] {
				return w.recipe.at(l.line, "layer %s: nothing in its images misses %s: remove it from without", l.Name, p)
			}
		}
	}
	return nil
}

func (w *work) done(p Piece) {
	if w.Progress != nil {
		w.Progress(p)
	}
}
