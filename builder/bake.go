// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/images/durable"
)

// plan is what a bake does, in the order in which it is told. Steps without an
// arrow between them run side by side.
func plan() []step {
	return []step{
		{"packages", nil, stepPackages},
		{"tools", []string{"packages"}, stepTools},
		{"images", nil, stepImages},
		{"rootfs", []string{"tools"}, stepRootfs},
		{"initrd", []string{"tools"}, stepInitrd},
		{"seal", []string{"rootfs"}, stepSeal},
		{"uki", []string{"seal", "initrd"}, stepUKI},
		{"factory", []string{"seal", "images"}, stepFactory},
		{"sbom", []string{"images"}, stepSBOM},
		{"disk", []string{"uki", "factory"}, stepDisk},
		{"release", []string{"uki", "images", "sbom"}, stepRelease},
	}
}

// Bake makes c.Output from c, or says in one error what is in the way. Until
// it returns without error the output folder is as it was; after an error, or
// a kill, so is it still, and the cache is usable.
func Bake(ctx context.Context, c Config, p Progress) (*Result, error) {
	w, err := prepare(ctx, c, p)
	if err != nil {
		return nil, err
	}
	c = w.cfg
	inputs := w.inputs()
	if m, ok := unchanged(c, inputs); ok {
		p.Say("nothing changed: %s is this very bake", c.Output)
		return &Result{Output: c.Output, Manifest: *m, Unchanged: true}, nil
	}
	parent, base := filepath.Split(c.Output)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(c.Cache, "outputs"), 0o755); err != nil {
		return nil, err
	}
	// One bake at a time into one folder.
	unlock, err := tools.Lock(filepath.Join(c.Cache, "outputs", key(c.Output)+".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	w.tmp = filepath.Join(parent, "."+base+".baking")
	if err := os.RemoveAll(w.tmp); err != nil {
		return nil, err
	}
	if err := os.Mkdir(w.tmp, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(w.tmp)
	times, err := runSteps(ctx, plan(), w, p)
	if err != nil {
		return nil, explain(err)
	}
	start := time.Now()
	m, err := finish(w, inputs, times)
	if err != nil {
		return nil, explain(err)
	}
	p.Done(StepTime{Name: "finish", Seconds: seconds(time.Since(start))})
	return &Result{Output: c.Output, Manifest: *m}, nil
}

// stepPackages brings every package of the lock into the cache.
func stepPackages(ctx context.Context, w *work) (made, error) {
	var told int64
	fetched := false
	err := w.debs.Fetch(ctx, func(done, total int64) {
		fetched = true
		if done-told >= 32<<20 || done == total {
			told = done
			w.p.Say("packages: %d of %d MB", done>>20, total>>20)
		}
	}, w.lock.OS, w.lock.Tools)
	var total int64
	for _, p := range w.lock.OS.Packages {
		total += p.Size
	}
	return made{!fetched, total}, err
}

func stepTools(ctx context.Context, w *work) (made, error) {
	t, fresh, err := tools.Ensure(ctx, filepath.Join(w.cfg.Cache, "tools"), w.debs, w.lock.Tools)
	w.tree = t
	return made{cached: !fresh}, err
}

// finish writes lock, certificate and manifest beside the disk, puts all on
// disk, and gives the folder its name.
func finish(w *work, inputs string, times []StepTime) (*Manifest, error) {
	c := w.cfg
	m := &Manifest{Format: 1, Name: c.Name, Version: c.Version, OSVersion: w.seal.meta.OSVersion, RootHash: w.seal.meta.RootHash,
		Release: w.release, Factory: c.Factory, Sizes: w.sizes, Inputs: inputs, Partitions: w.parts, Steps: times}
	if err := os.WriteFile(filepath.Join(w.tmp, LockName), w.lock.Marshal(), 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(w.tmp, CertName), w.certPEM, 0o644); err != nil {
		return nil, err
	}
	m.Files = []ManifestFile{{Name: "disk.raw", Bytes: w.diskSize, SHA256: w.diskHash}}
	for _, n := range []string{LockName, "sbom.cdx.json", CertName} {
		f, err := hashFile(w.tmp, n)
		if err != nil {
			return nil, err
		}
		m.Files = append(m.Files, f)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(w.tmp, ManifestName), append(b, '\n'), 0o644); err != nil {
		return nil, err
	}
	if err := syncTree(w.tmp); err != nil {
		return nil, err
	}
	if err := swap(w.tmp, c.Output); err != nil {
		return nil, err
	}
	return m, remember(c, m)
}

// Names of files in an output folder.
const (
	LockName     = "holdfast.lock"
	CertName     = "signing.crt"
	ManifestName = "manifest.json"
	// ReleaseName is the folder with the release.
	ReleaseName = "release"
)

// seen is what a finished output folder looked like, so that the next bake can
// tell that it was not touched without reading gigabytes again.
type seen struct {
	Inputs string              `json:"inputs"`
	Files  map[string]fileMark `json:"files"`
}

type fileMark struct {
	Bytes   int64  `json:"bytes"`
	Inode   uint64 `json:"inode"`
	ModTime int64  `json:"mod_time_ns"`
}

func remember(c Config, m *Manifest) error {
	s := seen{Inputs: m.Inputs, Files: map[string]fileMark{}}
	names, err := outputNames(c.Output, m)
	if err != nil {
		return err
	}
	for _, n := range names {
		k, err := mark(filepath.Join(c.Output, n))
		if err != nil {
			return err
		}
		s.Files[n] = k
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return durable.WriteFile(seenPath(c), b, 0o644)
}

func seenPath(c Config) string { return filepath.Join(c.Cache, "outputs", key(c.Output)+".json") }

// outputNames are the files of a bake, those of the release among them.
func outputNames(dir string, m *Manifest) ([]string, error) {
	names := []string{ManifestName}
	for _, f := range m.Files {
		names = append(names, f.Name)
	}
	err := filepath.WalkDir(filepath.Join(dir, ReleaseName), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, p)
		names = append(names, name)
		return err
	})
	return names, err
}

// unchanged is true when the output folder holds a bake of the same inputs and
// no file of it was written since.
func unchanged(c Config, inputs string) (*Manifest, bool) {
	b, err := os.ReadFile(seenPath(c))
	if err != nil {
		return nil, false
	}
	var s seen
	if json.Unmarshal(b, &s) != nil || s.Inputs != inputs {
		return nil, false
	}
	m, err := ReadManifest(c.Output)
	if err != nil || m.Inputs != inputs {
		return nil, false
	}
	names, err := outputNames(c.Output, m)
	if err != nil || len(names) != len(s.Files) {
		return nil, false
	}
	for _, n := range names {
		if k, err := mark(filepath.Join(c.Output, n)); err != nil || k != s.Files[n] {
			return nil, false
		}
	}
	return m, true
}

// ReadManifest reads the manifest of an output folder.
func ReadManifest(dir string) (*Manifest, error) {
	b, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		return nil, err
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, ManifestName), err)
	}
	return &m, nil
}

// explain adds what to do next to errors of the host that anyone may meet.
func explain(err error) error {
	if errors.Is(err, errNoSpace) {
		return fmt.Errorf("%w: the disk is full; free some room, or put the cache (cache, HOLDFAST_CACHE) and the output elsewhere", err)
	}
	return err
}

// cacheOf is the package cache of a bake.
func cacheOf(c Config) *debian.Cache {
	return &debian.Cache{Dir: filepath.Join(c.Cache, "debs"), Archive: c.Archive, Mirror: c.Mirror}
}
