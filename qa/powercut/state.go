// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/images/gpt"
)

// state looks at the state partition: LVM, the thin pool, and the file systems
// as they are once XFS has recovered.
func (c *Checker) state(ctx context.Context, d Disk, p gpt.Part, o *Outcome) error {
	pv := io.NewSectionReader(d.File, p.Offset, p.Size)
	g, err := ReadGroup(pv, p.Size)
	if err != nil {
		o.wrong("%v", err)
		return nil
	}
	pool, ok := g.Volumes["pool"]
	meta, data := g.Volumes[pool.Metadata], g.Volumes[pool.Data]
	if !ok || len(meta.Runs) == 0 || len(data.Runs) == 0 {
		o.Pool = "none yet"
		return nil
	}
	thin, err := c.thin(ctx, pv, pool, meta, o)
	if thin == nil {
		return err
	}
	blocks := data.Reader(pv)
	if err := c.volume(ctx, g, "state", thin, blocks, o, func(root string) error { return c.records(root, o) }); err != nil {
		return err
	}
	if c.Record == nil {
		return nil
	}
	// The data of what may run next. A trial's own is made anew at each start.
	names := []string{c.Record.Committed.Data}
	if k := c.Record.Kept; k != nil && k.Data != c.Record.Committed.Data {
		names = append(names, k.Data)
	}
	for _, name := range names {
		if _, ok := g.Volumes[name]; !ok {
			o.wrong("the record names the volume %s, which is not there", name)
			continue
		}
		if err := c.volume(ctx, g, name, thin, blocks, o, func(string) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// thin reads the pool's metadata; nil where it is damaged.
func (c *Checker) thin(ctx context.Context, pv io.ReaderAt, pool, meta Volume, o *Outcome) (*Thin, error) {
	f, err := c.work("meta")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := io.Copy(f, io.NewSectionReader(meta.Reader(pv), 0, meta.Size)); err != nil {
		return nil, err
	}
	// As LVM calls it before it starts a pool, which a status but 0 prevents.
	// It gives back chunks that were handed out and not yet mapped.
	if _, err := c.Programs.Run(ctx, "thin_check", "-q", "--clear-needs-check-flag", f.Name()); err != nil {
		o.wrong("thin_check finds the pool's metadata damaged: %v", err)
		return nil, nil
	}
	out := filepath.Join(c.Dir, "dump.xml")
	if _, err := c.Programs.Run(ctx, "thin_dump", "--output", out, f.Name()); err != nil {
		return nil, err
	}
	dump, err := os.Open(out)
	if err != nil {
		return nil, err
	}
	defer dump.Close()
	t, err := ParseThin(dump)
	if err != nil {
		return nil, err
	}
	// LVM writes what it is about to do, then tells the pool: it may be one
	// step ahead, and then says it again.
	switch ahead := pool.Transaction - t.Transaction; ahead {
	case 0:
		o.Pool = "in step"
	case 1:
		o.Pool = "LVM one step ahead"
	default:
		o.Pool = "out of step"
		o.wrong("LVM is at transaction %d, the pool at %d: the pool would not start", pool.Transaction, t.Transaction)
	}
	return t, nil
}

// volume makes a file of a thin volume, mounts it, so that XFS recovers, lets
// look see it, and has xfs_repair look at the result.
func (c *Checker) volume(ctx context.Context, g *Group, name string, t *Thin, pool io.ReaderAt, o *Outcome, look func(root string) error) (err error) {
	v, ok := g.Volumes[name]
	if !ok || v.Type != "thin" {
		o.wrong("there is no volume %s", name)
		return nil
	}
	if _, ok := t.Devices[v.Device]; !ok {
		o.wrong("the pool has nothing of the volume %s", name)
		return nil
	}
	f, err := c.work("volume")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if err := t.Copy(v.Device, v.Size, pool, f); err != nil {
		o.wrong("volume %s: %v", name, err)
		return nil
	}
	root := filepath.Join(c.Dir, "root")
	place := filepath.Join(root, "var")
	if err := os.MkdirAll(place, 0o700); err != nil {
		return err
	}
	// Without quotas: the kernel of a build host need not have them.
	unmount, err := Mount(f.Name(), 0, 0, place, "xfs", "nouuid,noquota", false)
	if errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO) || errors.Is(err, unix.EBADMSG) {
		o.wrong("the file system on %s does not mount: %v", name, err)
		return nil
	} else if err != nil {
		return err
	}
	err = look(root)
	if err = errors.Join(err, unmount()); err != nil {
		return err
	}
	if out, err := c.Programs.Run(ctx, "xfs_repair", "-n", "-f", f.Name()); err != nil {
		if found := damage(out); found != "" {
			o.wrong("xfs_repair finds %s damaged after recovery: %s", name, found)
		}
	}
	return nil
}

// damage is what xfs_repair finds besides quotas, at most five lines of it. A
// kernel without quotas does not recover theirs from the log; the box counts
// them anew.
func damage(out string) string {
	var found []string
	rest := false
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		low := strings.ToLower(line)
		if strings.Contains(low, "quot") || low == "would correct." { // also "dquot"
			continue
		}
		rest = rest || strings.Contains(low, "fatal")
		if strings.Contains(low, "would") || strings.Contains(low, "bad ") || strings.Contains(low, "corrupt") || strings.Contains(low, "error") || rest {
			found = append(found, line)
		}
	}
	return strings.Join(found[:min(len(found), 5)], "; ")
}

// records reads the generation record and the upgrade's own files as the box
// does at its next start.
func (c *Checker) records(root string, o *Outcome) error {
	rec, err := slot.Load(root)
	switch {
	case slot.Missing(err):
		o.Record = "none yet"
		return nil
	case err != nil:
		o.wrong("the generation record: %v", err)
		return nil
	}
	c.Record = &rec
	o.Record = fmt.Sprintf("generation %d committed", rec.Committed.Number)
	if t := rec.Trial; t != nil {
		o.Record += fmt.Sprintf(", %d on trial", t.Number)
		switch {
		case t.Failed != "":
			o.Record += " and failed"
		case t.Starts > 0:
			o.Record += " and started"
		}
	}
	if rec.Kept != nil {
		o.Record += fmt.Sprintf(", %d kept", rec.Kept.Number)
	}
	dir := filepath.Join(root, "var/lib/holdfast/upgrade")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), ".json") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if !json.Valid(data) {
			o.wrong("%s is not JSON", e.Name())
		}
	}
	return nil
}
