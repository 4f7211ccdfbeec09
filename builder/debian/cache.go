// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/durable"
)

// Cache keeps .deb files by hash: DIR/<sha256>.deb. A file there was checked
// when it was put there, and is never changed.
type Cache struct {
	// Dir is the folder; it is made when first needed.
	Dir string
	// Archive, when not empty, is a folder of the same form (made by Export)
	// that is searched before any mirror.
	Archive string
	// Mirror replaces the mirrors mmdebstrap picks by itself when not empty.
	Mirror string
}

// Path is where the cache keeps a package.
func (c *Cache) Path(p lock.Package) string { return filepath.Join(c.Dir, p.SHA256+".deb") }

// MissingError lists packages of a lock that nobody serves any more.
type MissingError struct{ Packages []string }

func (e *MissingError) Error() string {
	n := e.Packages
	more := ""
	if len(n) > 12 {
		more = fmt.Sprintf(" and %d more", len(n)-12)
		n = n[:12]
	}
	return fmt.Sprintf("%d packages of the lock can no longer be had: %s%s; mirrors drop old versions: give an archive of this lock (archive), or lock anew with `holdfast-release lock --relock`",
		len(e.Packages), strings.Join(n, ", "), more)
}

// Fetch makes sure that every package of the sets is in the cache. progress is
// called as bytes arrive, with the bytes still to fetch in total.
func (c *Cache) Fetch(ctx context.Context, progress func(done, total int64), sets ...lock.PackageSet) error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	want := map[string]lock.Package{}
	var total int64
	for _, s := range sets {
		for _, p := range s.Packages {
			if _, ok := want[p.SHA256]; ok {
				continue
			}
			// Size is compared so that a file cut short by a full disk is seen.
			if st, err := os.Stat(c.Path(p)); err == nil && st.Size() == p.Size {
				continue
			}
			want[p.SHA256] = p
			total += p.Size
		}
	}
	if len(want) == 0 {
		return nil
	}
	var done atomic.Int64
	tick := func(n int64) {
		if d := done.Add(n); progress != nil {
			progress(d, total)
		}
	}
	for h, p := range want {
		ok, err := c.fromArchive(p)
		if err != nil {
			return err
		}
		if ok {
			tick(p.Size)
			delete(want, h)
		}
	}
	if len(want) == 0 {
		return nil
	}
	bases, err := c.bases(ctx)
	if err != nil {
		return err
	}
	return c.download(ctx, want, bases, tick)
}

func (c *Cache) fromArchive(p lock.Package) (bool, error) {
	if c.Archive == "" {
		return false, nil
	}
	f, err := os.Open(filepath.Join(c.Archive, p.SHA256+".deb"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := c.put(p, f, func(int64) {}); err != nil {
		return false, fmt.Errorf("archive %s: %w", c.Archive, err)
	}
	return true, nil
}

// put checks size and hash while it writes; a wrong file never gets the name.
func (c *Cache) put(p lock.Package, r io.Reader, tick func(int64)) error {
	return durable.Write(c.Path(p), 0o644, func(w io.Writer) error {
		h := sha256.New()
		var n int64
		buf := make([]byte, 128<<10)
		for {
			k, err := r.Read(buf)
			n += int64(k)
			if n > p.Size {
				return fmt.Errorf("%s %s: more than the %d bytes the lock names", p.Name, p.Version, p.Size)
			}
			h.Write(buf[:k])
			if _, err := w.Write(buf[:k]); err != nil {
				return err
			}
			tick(int64(k))
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != p.SHA256 {
			return fmt.Errorf("%s %s: sha256 is %s, the lock says %s", p.Name, p.Version, got, p.SHA256)
		}
		return nil
	})
}

// bases are the roots of the mirrors, from the sources mmdebstrap picks, so
// that no mirror is written into the project or a lock.
func (c *Cache) bases(ctx context.Context) ([]string, error) {
	if err := hostReady(); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "holdfast-mirror-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	// The sources are written before anything is downloaded; the setup hook
	// copies them and ends the run there.
	list := filepath.Join(tmp, "sources")
	args := []string{"mmdebstrap", "--quiet", "--variant=custom", "--format=directory", "--skip=update",
		"--setup-hook=cat \"$1\"/etc/apt/sources.list \"$1\"/etc/apt/sources.list.d/* > " + list + " 2>/dev/null || true",
		Suite, filepath.Join(tmp, "root")}
	if c.Mirror != "" {
		args = append(args, c.Mirror)
	}
	out, runErr := run(ctx, args)
	b, err := os.ReadFile(list)
	if err != nil {
		return nil, resolveError(out, errors.Join(runErr, err))
	}
	var bases []string
	for _, l := range strings.Split(string(b), "\n") {
		for _, f := range strings.Fields(l) {
			if strings.HasPrefix(f, "http://") || strings.HasPrefix(f, "https://") || strings.HasPrefix(f, "file:") {
				f = strings.TrimSuffix(f, "/")
				if len(bases) == 0 || bases[len(bases)-1] != f {
					bases = append(bases, f)
				}
			}
		}
	}
	if len(bases) == 0 {
		return nil, errors.New("mmdebstrap names no Debian mirror; set one (mirror)")
	}
	return bases, nil
}

func (c *Cache) download(ctx context.Context, want map[string]lock.Package, bases []string, tick func(int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment,
		ResponseHeaderTimeout: 30 * time.Second, MaxIdleConnsPerHost: 8}}
	queue := make(chan lock.Package)
	var mu sync.Mutex
	var missing []string
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for p := range queue {
				found, err := c.get(ctx, client, p, bases, tick)
				if err != nil {
					cancel(err)
				} else if !found {
					mu.Lock()
					missing = append(missing, p.Name+" "+p.Version)
					mu.Unlock()
				}
			}
		})
	}
	for _, p := range want {
		select {
		case queue <- p:
		case <-ctx.Done():
		}
	}
	close(queue)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(missing) > 0 {
		return &MissingError{missing}
	}
	return nil
}

// get tries each mirror; found is false when all of them answer that they do
// not have the file.
func (c *Cache) get(ctx context.Context, client *http.Client, p lock.Package, bases []string, tick func(int64)) (found bool, err error) {
	var last error
	for _, base := range bases {
		if dir, ok := strings.CutPrefix(base, "file:"); ok {
			f, err := os.Open(filepath.Join("/", dir, p.Path))
			if err != nil {
				continue
			}
			defer f.Close()
			return true, c.put(p, f, tick)
		}
		for try := 0; try < 3; try++ {
			var n int64
			ok, err := c.getURL(ctx, client, p, base+"/"+p.Path, func(k int64) { n += k; tick(k) })
			if ok && err == nil {
				return true, nil
			}
			tick(-n)
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			if err == nil {
				break
			}
			// What this host can't write, no mirror can mend.
			var local *fs.PathError
			if errors.As(err, &local) {
				return false, err
			}
			last = err
		}
	}
	if last != nil {
		return false, fmt.Errorf("the Debian mirror does not deliver %s: %w; check the network, set a mirror that works (mirror), or give an archive of this lock (archive)", p.Name, last)
	}
	return false, nil
}

func (c *Cache) getURL(ctx context.Context, client *http.Client, p lock.Package, url string, tick func(int64)) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return false, nil
	case resp.StatusCode != http.StatusOK:
		return false, errors.New(resp.Status)
	}
	return true, c.put(p, resp.Body, tick)
}

// Export copies the packages of the sets from the cache to dir in the form
// that Cache.Archive reads.
func (c *Cache) Export(dir string, sets ...lock.PackageSet) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	to := &Cache{Dir: dir}
	for _, s := range sets {
		for _, p := range s.Packages {
			f, err := os.Open(c.Path(p))
			if err != nil {
				return err
			}
			err = to.put(p, f, func(int64) {})
			f.Close()
			if err != nil {
				return err
			}
		}
	}
	return nil
}
