// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/images/gpt"
)

// Campaign cuts the power of one recorded run many times.
type Campaign struct {
	// Base is the disk as a raw file as it was before the first entry of Log.
	// It is not changed.
	Base, Log string
	// Dir is a folder for the disk that is rebuilt: as large as the run's.
	Dir string
	// Memory is a folder for volumes, best in memory; "" means Dir.
	Memory   string
	Programs Programs
	// Cuts is how many; they follow from Seed. From and To bound them, as
	// numbers of entries; To 0 means the end.
	Cuts     int
	Seed     uint64
	From, To int
	// Sectors lets writes be torn at any sector of the partition state too. XFS
	// does not stand that: a block of its metadata, 4 KiB, whose first sector
	// alone is new passes for newer than the journal, and the mount fails at its
	// checksum. Disks of today write 4 KiB whole; so does state here otherwise.
	Sectors bool
	// Each, when set, gets every cut with what was found, while the disk is in
	// that state.
	Each func(n int, c Cut, disk *os.File, o Outcome) error
}

// Result is what a campaign found.
type Result struct {
	Cuts              int
	Whole, Torn, Lost int
	// Counts are outcomes by their parts: "record", "ESP", "FAT", "pool".
	Counts map[string]map[string]int
	// Wrong are the cuts with a problem, in words.
	Wrong []string
}

// Run does the campaign.
func (c Campaign) Run(ctx context.Context) (*Result, error) {
	logFile, err := os.Open(c.Log)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	info, err := logFile.Stat()
	if err != nil {
		return nil, err
	}
	size, err := sizeOf(c.Base)
	if err != nil {
		return nil, err
	}
	log, err := ReadLog(logFile, info.Size(), size)
	if err != nil {
		return nil, err
	}
	if len(log.Entries) == 0 {
		return nil, errors.New("the log has no entries")
	}
	to := c.To
	if to == 0 {
		to = len(log.Entries)
	}
	work, err := os.MkdirTemp(c.Dir, "powercut-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	memory := c.Memory
	if memory == "" {
		memory = work
	}
	volumes, err := os.MkdirTemp(memory, "powercut-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(volumes)
	check := &Checker{Programs: c.Programs, Dir: volumes}
	if err := c.learn(ctx, log, filepath.Join(work, "disk"), check, to); err != nil {
		return nil, err
	}
	disk, replay, err := c.fresh(log, filepath.Join(work, "disk"))
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	if p, ok := check.Table.Part("state"); ok && !c.Sectors {
		replay.Whole = []Range{{Offset: p.Offset, Len: p.Size, Unit: 4096}}
	}
	res := &Result{Counts: map[string]map[string]int{}}
	for n, at := range c.places(log, to) {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		cut, err := replay.Cut(at, c.Seed+uint64(n))
		if err != nil {
			return res, err
		}
		o, err := check.Check(ctx, Disk{File: disk, Size: size, Changes: replay.Changes})
		if err != nil {
			return res, fmt.Errorf("cut %d %s: %w", n, cut, err)
		}
		res.add(cut, o)
		if c.Each != nil {
			if err := c.Each(n, cut, disk, o); err != nil {
				return res, err
			}
		}
	}
	return res, nil
}

func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// fresh copies the base and replays nothing yet.
func (c Campaign) fresh(log *Log, path string) (*os.File, *Replay, error) {
	if err := CopySparse(path, c.Base); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	r, err := NewReplay(log, f)
	return f, r, errors.Join(err)
}

// learn looks at the run from its first to its last moment with nothing lost:
// which generations are committed, and what the kernel images and loaders are.
// An image gets its final name when all of it is on the disk, and nothing is
// lost here, so what has such a name is whole.
func (c Campaign) learn(ctx context.Context, log *Log, path string, check *Checker, to int) error {
	disk, replay, err := c.fresh(log, path)
	if err != nil {
		return err
	}
	defer disk.Close()
	var allowed []slot.Generation
	images := map[string]bool{}
	size, err := sizeOf(c.Base)
	if err != nil {
		return err
	}
	const looks = 12 // a recording may be of several upgrades
	for i := range looks + 1 {
		at := c.From + (to-c.From)*i/looks
		for next := replay.next; next < at; next++ { // every write, flushed or not
			if err := replay.write(log.Entries[next], nil, false); err != nil {
				return err
			}
			replay.next = next + 1
		}
		if check.Table, err = gpt.Decode(disk, size); err != nil {
			return err
		}
		o, err := check.Check(ctx, Disk{File: disk, Size: size, Changes: replay.Changes})
		if err != nil {
			return err
		}
		if len(o.Problems) > 0 && (i == 0 || i == looks) {
			return fmt.Errorf("after entry %d, without any cut: %s", at, strings.Join(o.Problems, "; "))
		}
		if check.Record != nil {
			allowed = append(allowed, check.Record.Committed)
		}
		for _, f := range check.Found {
			if strings.HasSuffix(strings.ToLower(f.Path), ".efi") && f.Digest != "" {
				images[f.Digest] = true
			}
		}
	}
	check.Allowed, check.Images, check.verified = allowed, images, nil
	return nil
}

// places are the entries to cut after, in rising order: half of them anywhere,
// half within a few entries of a flush, where commits are made.
func (c Campaign) places(log *Log, to int) []int {
	rnd := rand.New(rand.NewPCG(c.Seed, 1))
	var flushes []int
	for i := c.From; i < to; i++ {
		if log.Entries[i].Flags&(Flush|FUA) != 0 {
			flushes = append(flushes, i)
		}
	}
	out := make([]int, c.Cuts)
	for i := range out {
		at := c.From + rnd.IntN(to-c.From+1)
		if i%2 == 1 && len(flushes) > 0 {
			at = flushes[rnd.IntN(len(flushes))] + rnd.IntN(5) - 2
		}
		out[i] = min(max(at, c.From), to)
	}
	slices.Sort(out)
	return out
}

// CopySparse copies a file with its holes.
func CopySparse(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	const seekData, seekHole = 3, 4 // lseek(2)
	for at := int64(0); ; {
		from, err := in.Seek(at, seekData)
		if err != nil { // no data from there on
			return out.Close()
		}
		end, err := in.Seek(from, seekHole)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, from), io.NewSectionReader(in, from, end-from)); err != nil {
			return err
		}
		at = end
	}
}

func (r *Result) add(c Cut, o Outcome) {
	r.Cuts++
	r.Whole, r.Torn, r.Lost = r.Whole+c.Whole, r.Torn+c.Torn, r.Lost+c.Lost
	for part, value := range map[string]string{"record": o.Record, "ESP": o.ESP, "FAT": o.FAT, "pool": o.Pool} {
		if r.Counts[part] == nil {
			r.Counts[part] = map[string]int{}
		}
		r.Counts[part][value]++
	}
	if len(o.Problems) > 0 {
		r.Wrong = append(r.Wrong, c.String()+": "+strings.Join(o.Problems, "; "))
	}
}

// String is the histogram.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d cuts; of the writes no flush covered %d stayed whole, %d were torn, %d were lost; %d disks are wrong\n", r.Cuts, r.Whole, r.Torn, r.Lost, len(r.Wrong))
	for _, part := range []string{"record", "ESP", "FAT", "pool"} {
		values := make([]string, 0, len(r.Counts[part]))
		for v := range r.Counts[part] {
			values = append(values, v)
		}
		slices.SortFunc(values, func(a, b string) int {
			return 2*(r.Counts[part][b]-r.Counts[part][a]) + strings.Compare(a, b)
		})
		for _, v := range values {
			fmt.Fprintf(&b, "  %-6s %5d  %s\n", part, r.Counts[part][v], v)
		}
	}
	for _, w := range r.Wrong {
		fmt.Fprintf(&b, "  WRONG  %s\n", w)
	}
	return b.String()
}
