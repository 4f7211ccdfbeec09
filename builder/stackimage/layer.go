// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/durable"
)

// layerFormat enters every cache key: a change of what this package makes of
// the same inputs must change it.
const layerFormat = 1

// record is what the cache remembers of a finished layer.
type record struct {
	// Digest and Size of the compressed blob, DiffID of the tar: hex sha256.
	Digest string `json:"digest"`
	DiffID string `json:"diff_id"`
	Size   int64  `json:"size"`
	// Packages in the layer, sorted by name.
	Packages []recordPackage `json:"packages,omitempty"`
	// Needs and Has are libraries by name; see tree.libraries.
	Needs map[string]string `json:"needs,omitempty"`
	Has   []string          `json:"has,omitempty"`
}

type recordPackage struct {
	Package
	Depends  string `json:"depends,omitempty"`
	Provides string `json:"provides,omitempty"`
}

// inputs is all that decides a layer's bytes; its JSON is hashed.
type inputs struct {
	Format   int               `json:"format"`
	Epoch    int64             `json:"epoch"`
	Packages map[string]string `json:"packages"`
	Drop     []string          `json:"drop"`
	Entries  map[string]Entry  `json:"entries"`
	Out      string            `json:"out"`
	Binary   string            `json:"binary"`
}

// source is where a layer's bytes come from.
type source struct {
	layer  Layer
	debs   []lock.Package // sorted by name
	dir    string         // of <sha256>.deb
	binary string         // path of the built program, or ""
	epoch  int64
}

func (s source) key() (string, error) {
	in := inputs{Format: layerFormat, Epoch: s.epoch, Packages: map[string]string{}, Drop: s.layer.Drop, Entries: s.layer.Entries}
	for _, d := range s.debs {
		in.Packages[d.Name] = d.SHA256
	}
	if s.binary != "" {
		h, err := hashFile(s.binary)
		if err != nil {
			return "", err
		}
		in.Out, in.Binary = s.layer.Program.Out, h
	}
	b, err := json.Marshal(in)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// make fills a tree and writes it compressed to blobTo.
func (s source) make(ctx context.Context, stage, blobTo string) (*record, error) {
	f, err := os.CreateTemp(stage, "spool-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	t := &tree{nodes: map[string]*node{}, spool: &spool{f: f}, epoch: s.epoch}
	rec := &record{}
	if rec.Packages, err = s.unpack(ctx, t); err != nil {
		return nil, err
	}
	for _, d := range s.layer.Drop {
		if err := t.drop(d); err != nil {
			return nil, err
		}
	}
	if err := s.own(t); err != nil {
		return nil, err
	}
	if err := t.parents(); err != nil {
		return nil, err
	}
	if rec.Needs, rec.Has, err = t.libraries(); err != nil {
		return nil, err
	}
	if err := compress(ctx, t, blobTo, rec); err != nil {
		return nil, err
	}
	return rec, nil
}

// unpack reads all packages at once, for decompressing them takes the longest,
// and then adds them in order, so that the tree does not depend on timing.
func (s source) unpack(ctx context.Context, t *tree) ([]recordPackage, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	read := make([]deb, len(s.debs))
	slots := make(chan struct{}, max(2, runtime.NumCPU()))
	var wg sync.WaitGroup
	for i, d := range s.debs {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var err error
			if ctx.Err() != nil {
				return
			}
			if read[i], err = s.readDeb(ctx, t.spool, d); err != nil {
				cancel(fmt.Errorf("package %s: %w", d.Name, err))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	var packages []recordPackage
	for i, d := range s.debs {
		if err := t.settle(d.Name, read[i].nodes); err != nil {
			return nil, err
		}
		c := read[i].control
		// Scanners read what is inside from status.d when no dpkg database is
		// there, as in other images made without a package manager.
		status, err := t.spool.take(strings.NewReader(c), int64(len(c)))
		if err != nil {
			return nil, err
		}
		if err := t.put("/var/lib/dpkg/status.d/"+d.Name, &node{mode: 0o644, data: status}); err != nil {
			return nil, err
		}
		depends := strings.Trim(controlField(c, "Pre-Depends")+", "+controlField(c, "Depends"), ", ")
		packages = append(packages, recordPackage{Package: Package{Name: d.Name, Version: d.Version, Arch: d.Arch, SHA256: d.SHA256},
			Depends: depends, Provides: controlField(c, "Provides")})
	}
	return packages, nil
}

func (s source) readDeb(ctx context.Context, to *spool, d lock.Package) (deb, error) {
	file := filepath.Join(s.dir, d.SHA256+".deb")
	got, err := hashFile(file)
	if err != nil {
		return deb{}, err
	}
	if got != d.SHA256 {
		return deb{}, fmt.Errorf("%s does not hold the bytes its name says: remove it", file)
	}
	control, err := debControl(ctx, file)
	if err != nil {
		return deb{}, err
	}
	if n, v := controlField(control, "Package"), controlField(control, "Version"); n != d.Name || v != d.Version {
		return deb{}, fmt.Errorf("%s is %s %s, not %s %s", file, n, v, d.Name, d.Version)
	}
	read := deb{control: control}
	err = debFiles(ctx, file, func(r io.Reader) error {
		read.nodes, err = readTar(r, to)
		return err
	})
	return read, err
}

// own adds the program and the entries of the recipe.
func (s source) own(t *tree) error {
	if s.binary != "" {
		b, err := os.Open(s.binary)
		if err != nil {
			return err
		}
		defer b.Close()
		st, err := b.Stat()
		if err != nil {
			return err
		}
		data, err := t.spool.take(b, st.Size())
		if err != nil {
			return err
		}
		if err := t.put(s.layer.Program.Out, &node{mode: 0o755, data: data}); err != nil {
			return err
		}
	}
	for _, p := range sortedKeys(s.layer.Entries) {
		e := s.layer.Entries[p]
		n := &node{mode: e.Mode, uid: e.UID, gid: e.GID}
		switch {
		case e.Mode.IsDir():
		case e.Mode&fs.ModeSymlink != 0:
			n.target = e.Content
		default:
			data, err := t.spool.take(strings.NewReader(e.Content), int64(len(e.Content)))
			if err != nil {
				return err
			}
			n.data = data
		}
		if err := t.put(p, n); err != nil {
			return err
		}
	}
	return nil
}

// compress writes the tree's tar as zstd. Level and concurrency are fixed:
// they decide the bytes. zstd, because a box unpacks its images once, at first
// boot, and there it costs a fraction of gzip's time.
func compress(ctx context.Context, t *tree, to string, rec *record) error {
	tarSum, blobSum := sha256.New(), sha256.New()
	var size counter
	err := durable.Write(to, 0o644, func(w io.Writer) error {
		z, err := zstd.NewWriter(io.MultiWriter(w, blobSum, &size), zstd.WithEncoderLevel(zstd.SpeedBetterCompression),
			zstd.WithEncoderConcurrency(2), zstd.WithEncoderCRC(true))
		if err != nil {
			return err
		}
		if err := t.write(io.MultiWriter(z, tarSum, stopped{ctx})); err != nil {
			z.Close()
			return err
		}
		return z.Close()
	})
	hexOf := func(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }
	rec.Digest, rec.DiffID, rec.Size = hexOf(blobSum), hexOf(tarSum), int64(size)
	return err
}

// stopped is a writer that fails once its context has ended.
type stopped struct{ ctx context.Context }

func (s stopped) Write(p []byte) (int, error) { return len(p), context.Cause(s.ctx) }

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }
