// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/version"
	"github.com/holdfast/holdfast/images/chunk"
)

// releaseVersion rises when stepRelease makes something else of the same
// input.
const releaseVersion = 1

// maxTrustRoot bounds a file of TUF root metadata in bytes: some dozen keys.
const maxTrustRoot = 512 << 10

var channelRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// CheckUpgrade checks what the configuration says of upgrades; its error has
// one line for each bad key.
func (c Config) CheckUpgrade() error {
	var bad []error
	report := func(format string, args ...any) { bad = append(bad, fmt.Errorf(format, args...)) }
	if c.Epoch < 0 || c.Epoch > release.MaxEpoch {
		report("epoch: %d is not 0 to %d", c.Epoch, release.MaxEpoch)
	}
	switch {
	case c.MinFrom == "":
	case !version.Valid(c.MinFrom):
		report("min_from: %q is no version of the form 1.2.3", c.MinFrom)
	case version.Valid(c.Version) && version.Compare(c.MinFrom, c.Version) > 0:
		report("min_from: %s is newer than the release, %s: no box could ever take it", c.MinFrom, c.Version)
	}
	if len(c.UpdateSource) > 500 || strings.ContainsFunc(c.UpdateSource, func(r rune) bool { return r <= ' ' || r > '~' }) {
		report("update_source: %q must be at most 500 printable ASCII characters without spaces", c.UpdateSource)
	}
	if c.UpdateChannel != "" && !channelRE.MatchString(c.UpdateChannel) {
		report("update_channel: %q must be 1 to 40 of a-z, 0-9 and -", c.UpdateChannel)
	}
	seconds := func(key string, d time.Duration, most int64) {
		if d < 0 || d%time.Second != 0 || d > time.Duration(most)*time.Second {
			report("%s: %s must be whole seconds, at most %d", key, d, most)
		}
	}
	seconds("gate_deadline", c.GateDeadline, release.MaxDeadline)
	seconds("gate_window", c.GateWindow, release.MaxWindow)
	if cmp.Or(c.GateWindow, release.DefaultWindow*time.Second) >= cmp.Or(c.GateDeadline, release.DefaultDeadline*time.Second) {
		report("gate_window: it must be shorter than gate_deadline")
	}
	return errors.Join(bad...)
}

// readTrustRoot reads TUF root metadata to seal in the root; nil for none.
// Whether its signatures are good is for those to say who made it, and for
// the box.
func readTrustRoot(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("trust_root: %w; make one with `holdfast-release keys init`", err)
	}
	defer f.Close()
	var b bytes.Buffer
	if n, err := b.ReadFrom(io.LimitReader(f, maxTrustRoot+1)); err != nil {
		return nil, fmt.Errorf("trust_root: %w", err)
	} else if n > maxTrustRoot {
		return nil, fmt.Errorf("trust_root: %s has more than %d bytes", path, maxTrustRoot)
	}
	var root struct {
		Signed struct {
			Type string `json:"_type"`
		} `json:"signed"`
	}
	if err := json.Unmarshal(b.Bytes(), &root); err != nil || root.Signed.Type != "root" {
		return nil, fmt.Errorf("trust_root: %s is no TUF root metadata; name the root.json that `holdfast-release keys init` made", path)
	}
	return b.Bytes(), nil
}

// engineOf names the container engine by the packages that open its store.
// Roots that have the same may share a store.
func engineOf(set lock.PackageSet) (string, error) {
	var parts []string
	for _, name := range []string{"docker.io", "containerd"} {
		v := ""
		for _, p := range set.Packages {
			if p.Name == name {
				v = p.Version
			}
		}
		if v == "" {
			return "", fmt.Errorf("the lock names no package %s, which the box needs; lock anew", name)
		}
		// An epoch's colon has no place in the name of a folder.
		parts = append(parts, name+"-"+strings.ReplaceAll(v, ":", "_"))
	}
	return strings.Join(parts, "_"), nil
}

// describe is the release as its factory has it: all that does not depend on
// how the operating system is packed for upgrades.
func (w *work) describe() (release.Description, error) {
	c := w.cfg
	d := release.Description{Format: 1, Name: c.Name, Version: c.Version, Created: w.lock.Epoch,
		Stack: w.lock.Stack.Digest, OS: release.OS{Version: w.seal.meta.OSVersion, RootHash: w.seal.meta.RootHash},
		Data:  release.Data{ReadableFrom: w.stack.ReadableFrom},
		Epoch: c.Epoch, MinFrom: c.MinFrom, Engine: w.engine,
		Gate:   release.Gate{Deadline: int64(c.GateDeadline / time.Second), Window: int64(c.GateWindow / time.Second)},
		Update: release.Update{Source: c.UpdateSource, Channel: c.UpdateChannel}}
	if c.Factory == Seed {
		d.Factory = release.Seed
	}
	for _, i := range w.lock.Images {
		d.Images = append(d.Images, release.Image{Ref: i.Ref, Digest: i.Digest, Size: i.Size})
	}
	var err error
	d.Requirements, err = w.requirements()
	return d, err
}

// requirements are what the stack needs at the smallest size it is made for.
func (w *work) requirements() (r release.Requirements, err error) {
	least := w.sizes[0]
	b, err := budget.For(w.stack, least.Name, budget.NodeOf(w.stack, least))
	if err != nil {
		return r, err
	}
	cpus := b.Reserve.CPU - b.Overlap.CPU
	r.Memory = b.Reserve.Memory - b.Overlap.Memory
	for _, s := range b.Services {
		cpus += s.Guaranteed.CPU
		r.Memory += s.Guaranteed.Memory
	}
	r.CPUs = int64(math.Ceil(cpus*1000 - 1e-6))
	for _, v := range b.Volumes {
		r.Data += v.Bytes
	}
	// The least volume of which the budgets leave the reserve: a twentieth.
	r.Data += budget.DataReserve(r.Data / 19 * 20)
	for _, i := range w.lock.Images {
		r.Images += i.Size
	}
	return r, nil
}

// stepRelease makes the release that boxes upgrade to, an OCI layout. Root,
// UKI and image layers are hard links into the cache, which is never written
// to again: so the folder costs nothing but what is new in this release.
func stepRelease(ctx context.Context, w *work) (m made, err error) {
	var stackTar bytes.Buffer
	if err := w.stack.Tar(&stackTar); err != nil {
		return m, err
	}
	d, err := w.describe()
	if err != nil {
		return m, err
	}
	d.Verity = &release.Verity{Salt: w.seal.meta.Salt, UUID: w.seal.meta.UUID, Bytes: w.seal.meta.Bytes}
	parts := release.PartFiles{UKI: w.uki, Root: w.seal.image, Boot: w.bootloader, SBOM: filepath.Join(w.tmp, "sbom.cdx.json"), Link: true}
	m.cached = true
	for _, c := range []struct {
		key, file string
		to        *string
	}{{w.ukiKey, w.uki, &parts.UKIChunks}, {w.seal.key, w.seal.image, &parts.RootChunks}} {
		path, cached, err := chunks(ctx, w, c.key, c.file)
		if err != nil {
			return m, err
		}
		*c.to, m.cached = path, m.cached && cached
	}
	keep, unlock, err := keptLayers(w.cfg.Cache)
	if err != nil {
		return m, err
	}
	defer unlock()
	parts.Keep = keep
	dir := filepath.Join(w.tmp, ReleaseName)
	if w.release, err = release.WriteFull(ctx, dir, d, stackTar.Bytes(), w.images, parts, w.key); err != nil {
		return m, err
	}
	for _, p := range []string{parts.UKI, parts.Root, parts.Boot} {
		st, err := os.Stat(p)
		if err != nil {
			return m, err
		}
		m.bytes += st.Size()
	}
	return m, nil
}

// keptLayers is the folder of image layers in the cache, locked: factory and
// release have the same, and what one has fetched from a registry the other
// finds.
func keptLayers(cache string) (dir string, unlock func(), err error) {
	dir = filepath.Join(cache, "layers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	unlock, err = tools.Lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return "", nil, err
	}
	if err := clearLeft(filepath.Join(dir, ".writing-*")); err != nil {
		unlock()
		return "", nil, err
	}
	return dir, unlock, nil
}

// chunks is the chunk index of a file, kept by the key of the product that the
// file is of.
func chunks(ctx context.Context, w *work, of, file string) (string, bool, error) {
	const name = "index"
	dir, cached, err := product(ctx, w.cfg.Cache, "chunks", key("chunks", releaseVersion, of), func(dir string) error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		x, err := chunk.Make(ctx, f)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), x.Encode(), 0o644)
	})
	return filepath.Join(dir, name), cached, err
}
