// SPDX-License-Identifier: Apache-2.0

// Package debset keeps the pins of the Debian packages that a stack's own
// images are made of: a small file beside their OCI layout. So building the
// images again gives the same digests, until someone asks for newer packages
// or the mirror has dropped them. It resolves no dependencies.
package debset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/durable"
)

// maxFile bounds the file of pins: some hundred bytes a package.
const maxFile = 4 << 20

// Keeper answers which packages, pinned how, and has them at hand.
type Keeper struct {
	// File holds the pins; it is made when absent.
	File string
	// Cache gets and keeps the packages.
	Cache *debian.Cache
	// Anew asks the mirror even where File serves.
	Anew bool
	// Say hears what a person should know.
	Say func(format string, args ...any)
	// Progress hears of bytes fetched; may be nil.
	Progress func(done, total int64)
	// resolve is debian.Resolve outside tests.
	resolve func(context.Context, debian.Request) (map[string]lock.PackageSet, error)
	fetch   func(context.Context, lock.PackageSet) error
}

// Packages is what stackimage.Options.Packages wants.
func (k *Keeper) Packages(ctx context.Context, names []string) (lock.PackageSet, string, error) {
	set, err := k.read()
	if err != nil {
		return set, "", err
	}
	if !k.Anew && slices.Equal(set.Wanted, names) {
		err := k.get(ctx, set)
		var missing *debian.MissingError
		if !errors.As(err, &missing) {
			return set, k.Cache.Dir, err
		}
		k.Say("%s: %d packages are no longer served, so all are pinned anew and the images change", k.File, len(missing.Packages))
	}
	resolve := k.resolve
	if resolve == nil {
		resolve = debian.Resolve
	}
	answer, err := resolve(ctx, debian.Request{Mirror: k.Cache.Mirror, Sets: []debian.Set{{Name: "images", Wanted: names, NoDeps: true}}})
	if err != nil {
		return set, "", err
	}
	set = answer["images"]
	if err := k.get(ctx, set); err != nil {
		return set, "", err
	}
	text, err := json.MarshalIndent(set, "", " ")
	if err != nil {
		return set, "", err
	}
	if err := os.MkdirAll(filepath.Dir(k.File), 0o755); err != nil {
		return set, "", err
	}
	return set, k.Cache.Dir, durable.WriteFile(k.File, append(text, '\n'), 0o644)
}

func (k *Keeper) get(ctx context.Context, set lock.PackageSet) error {
	if k.fetch != nil {
		return k.fetch(ctx, set)
	}
	return k.Cache.Fetch(ctx, k.Progress, set)
}

// read reads the pins, none where there is no file.
func (k *Keeper) read() (set lock.PackageSet, err error) {
	f, err := os.Open(k.File)
	if errors.Is(err, os.ErrNotExist) {
		return set, nil
	}
	if err != nil {
		return set, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return set, err
	}
	set, err = parse(data)
	if err != nil {
		return set, fmt.Errorf("%s: %w; remove the file to pin the packages anew", k.File, err)
	}
	return set, nil
}

func parse(data []byte) (set lock.PackageSet, err error) {
	if len(data) > maxFile {
		return set, fmt.Errorf("is more than %d bytes", maxFile)
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return set, err
	}
	for _, p := range set.Packages {
		// The hash becomes a file name.
		if len(p.SHA256) != 64 || !isHex(p.SHA256) || p.Name == "" || p.Size <= 0 {
			return lock.PackageSet{}, fmt.Errorf("package %q has no usable hash and size", p.Name)
		}
	}
	return set, nil
}

func isHex(s string) bool {
	return !slices.ContainsFunc([]byte(s), func(c byte) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'f') })
}
