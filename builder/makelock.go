// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/builder/version"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/stack"
)

// MakeLock resolves the stack of c and its operating system. What old pins is
// kept where it is still wanted, so that locking twice changes nothing; with
// relock, or where old is nil, packages are asked of the mirror anew. Images
// are always looked up, because a name may mean another digest by now.
func MakeLock(ctx context.Context, c Config, old *lock.Lock, relock bool, now time.Time) (*lock.Lock, error) {
	s, err := stack.Load(ctx, c.Stack, stack.Options{})
	if err != nil {
		return nil, err
	}
	digest, err := s.Digest()
	if err != nil {
		return nil, err
	}
	images, err := lock.ResolveImages(ctx, s.Images(), c.Layouts, lock.RegistryOptions{})
	if err != nil {
		return nil, err
	}
	built, err := supervisorGo(c.OS)
	if err != nil {
		return nil, err
	}
	l := &lock.Lock{Format: lock.FormatVersion, Holdfast: version.Version, Go: built,
		Stack: lock.StackPin{Name: s.Name, Digest: digest}, Images: images}
	osWanted, toolsWanted := wanted(c.OS.Packages, c.ExtraPackages), wanted(tools.Packages)
	if old != nil && !relock && slices.Equal(old.OS.Wanted, osWanted) && slices.Equal(old.Tools.Wanted, toolsWanted) {
		l.OS, l.Tools, l.Epoch = old.OS, old.Tools, old.Epoch
		return l, nil
	}
	// The epoch goes with the packages: a change of the stack alone must not
	// change the root, whose file times it clamps.
	l.Epoch = now.Unix()
	sets, err := debian.Resolve(ctx, debian.Request{Mirror: c.Mirror, Sets: []debian.Set{
		{Name: "os", Wanted: osWanted, Essential: true},
		{Name: "tools", Wanted: toolsWanted, Essential: true},
	}})
	if err != nil {
		return nil, err
	}
	l.OS, l.Tools = sets["os"], sets["tools"]
	return l, nil
}

// ReadLock reads a lock, nil where there is none yet.
func ReadLock(path string) (*lock.Lock, error) {
	l, err := lock.Read(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return l, err
}

// FetchLocked brings every package of the lock into c's cache, so that a lock
// that nobody can serve any more is known when it is made, and an archive of
// it can be written.
func FetchLocked(ctx context.Context, c Config, l *lock.Lock, progress func(done, total int64)) (*debian.Cache, error) {
	if c.Cache == "" {
		dir, err := CacheDir()
		if err != nil {
			return nil, err
		}
		c.Cache = dir
	}
	cache := cacheOf(c)
	return cache, cache.Fetch(ctx, progress, l.OS, l.Tools)
}
