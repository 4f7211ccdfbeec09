// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/rootfs"
	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/durable"
	"github.com/holdfast/holdfast/images/sign"
)

// Vendor makes and publishes test releases. All it makes is below one folder
// of the cache and is made again only when what it is made from has changed.
type Vendor struct {
	// root is the checkout, home the vendor's folder in the cache, dir the one
	// in it for all that one operating system is in.
	root, home, dir string
	inUse           *os.File
	os              builder.OS
	lock            *lock.Lock
	log             func(format string, args ...any)
	tuf             []byte
}

// shared are the parts of the cache that hold what costs minutes and differs
// in no test release; the rest is the vendor's own, so that old roots can be
// thrown away.
var shared = []string{"debs", "tools", "rootfs", "initrd"}

// OpenVendor makes ready what all releases share. root is the checkout, in
// which `make image` has put images, locks and the supervisor; HOLDFAST_SUPERVISOR
// names another supervisor.
func OpenVendor(ctx context.Context, root string, log func(format string, args ...any)) (*Vendor, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("these tests bake releases, which needs root: run as root or with sudo")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	cache, err := builder.CacheDir()
	if err != nil {
		return nil, err
	}
	v := &Vendor{root: root, home: filepath.Join(cache, "qa-upgrade"), log: log}
	v.dir = v.home
	program := cmp.Or(os.Getenv("HOLDFAST_SUPERVISOR"), filepath.Join(root, "builder/supervisorbin/holdfast"))
	supervisor, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("%w: `make image` builds it", err)
	}
	s := rootfs.Spec()
	v.os = builder.OS{
		Files: s.Files, Modes: s.Modes, Links: s.Links, Dirs: s.Dirs, Remove: s.Remove, Move: s.Moves,
		Packages: s.Packages, Purge: s.Purge,
		InitrdModules: s.InitrdModules, InitrdDrivers: s.InitrdDrivers, InitrdOmit: s.InitrdOmit, Cmdline: s.Cmdline,
		Supervisor: supervisor,
	}
	if err := v.keys(ctx); err != nil {
		return nil, err
	}
	if err := v.use(); err != nil {
		return nil, err
	}
	if err := v.cache(cache); err != nil {
		return nil, err
	}
	return v, v.baseLock(ctx)
}

// cache joins the vendor's own cache with the shared parts.
func (v *Vendor) cache(shareFrom string) error {
	if err := os.MkdirAll(v.Path("cache"), 0o755); err != nil {
		return err
	}
	for _, name := range shared {
		from := filepath.Join(shareFrom, name)
		if err := os.MkdirAll(from, 0o755); err != nil {
			return err
		}
		err := os.Symlink(from, v.Path("cache", name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// Path below the vendor's folder for what this operating system is in.
func (v *Vendor) Path(names ...string) string {
	return filepath.Join(append([]string{v.dir}, names...)...)
}

// use chooses the folder for what is made from this operating system and root
// of trust, and throws away those of others that no process uses: each release
// is half a gigabyte, and none of theirs is ever booted again.
func (v *Vendor) use() error {
	h := sha256.New()
	h.Write(v.tuf)
	h.Write(v.os.Supervisor)
	o := v.os
	fmt.Fprintln(h, o.Modes, o.Links, o.Dirs, o.Remove, o.Move, o.Packages, o.Purge, o.InitrdModules, o.InitrdDrivers, o.InitrdOmit, o.Cmdline)
	err := fs.WalkDir(o.Files, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(o.Files, p)
		fmt.Fprintf(h, "%s %d\n%s", p, len(b), b)
		return err
	})
	if err != nil {
		return err
	}
	all := v.Path("of")
	if err := os.MkdirAll(all, 0o755); err != nil {
		return err
	}
	v.dir = filepath.Join(all, hex.EncodeToString(h.Sum(nil)[:8]))
	if v.inUse, err = hold(v.dir, unix.LOCK_SH); err != nil {
		return err
	}
	others, err := filepath.Glob(filepath.Join(all, "*.lock"))
	if err != nil {
		return err
	}
	for _, name := range others {
		dir := strings.TrimSuffix(name, ".lock")
		if dir == v.dir {
			continue
		}
		f, err := hold(dir, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		} else if err != nil {
			return err
		}
		err = os.RemoveAll(dir)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// hold locks a folder by a file beside it; the lock ends with the file or the
// process.
func hold(dir string, how int) (*os.File, error) {
	f, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// keys makes the pair that signs kernels and releases, and the vendor's TUF
// keys, where they are not there.
func (v *Vendor) keys(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(v.home, "signing"), 0o700); err != nil {
		return err
	}
	key, cert := v.pair()
	if _, _, err := sign.LoadPair(key, cert); err != nil {
		if err := os.RemoveAll(filepath.Join(v.home, "signing")); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(v.home, "signing"), 0o700); err != nil {
			return err
		}
		if err := sign.MakePair(key, cert, "Holdfast upgrade tests", time.Now()); err != nil {
			return err
		}
	}
	return v.tufKeys(ctx)
}

func (v *Vendor) pair() (key, cert string) {
	return filepath.Join(v.home, "signing", "key.pem"), filepath.Join(v.home, "signing", "cert.pem")
}

// baseLock is the demo's lock, made anew where the packages that a box wants
// have changed since; all releases share it, and so the package versions.
func (v *Vendor) baseLock(ctx context.Context) (err error) {
	spec := Spec{Version: "1.0.0", Demo: "1.0.0"}
	old, err := builder.ReadLock(filepath.Join(v.root, "build", "demo-1.0.0.lock"))
	if err != nil {
		return err
	}
	if old == nil {
		return fmt.Errorf("there is no lock build/demo-1.0.0.lock: run `make image`")
	}
	c, err := v.config(spec)
	if err != nil {
		return err
	}
	kept, err := builder.ReadLock(filepath.Join(v.home, "base.lock"))
	if err != nil {
		return err
	}
	for _, from := range []*lock.Lock{old, kept} {
		l, err := v.relock(ctx, c, from)
		if err != nil {
			return err
		}
		if l != nil {
			v.lock = l
			return nil
		}
	}
	v.log("the box's packages have changed since build/demo-1.0.0.lock: pinning them anew for these tests")
	if v.lock, err = builder.MakeLock(ctx, c, nil, true, time.Now()); err != nil {
		return err
	}
	if _, err := builder.FetchLocked(ctx, c, v.lock, func(int64, int64) {}); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(v.home, "base.lock"), v.lock.Marshal(), 0o644)
}

// relock is the lock of c with the packages of from, nil where from has others
// than are wanted.
func (v *Vendor) relock(ctx context.Context, c builder.Config, from *lock.Lock) (*lock.Lock, error) {
	if from == nil || !slices.Equal(from.OS.Wanted, sortedSet(c.OS.Packages)) {
		return nil, nil
	}
	l, err := builder.MakeLock(ctx, c, from, false, time.Now())
	if err != nil || l.Epoch != from.Epoch {
		return nil, err
	}
	return l, nil
}

func sortedSet(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

func sorted(all map[string]fs.DirEntry) []fs.DirEntry {
	list := make([]fs.DirEntry, 0, len(all))
	for _, e := range all {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list
}
