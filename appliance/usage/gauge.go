// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"context"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of the measuring of one volume.
const (
	gaugeEvery = 15 * time.Minute
	gaugeFiles = 500_000
	gaugeDepth = 100
	// gaugeBatch entries are looked at, then gaugePause passes, so that a walk
	// takes a few percent of a core and of the disk at most.
	gaugeBatch = 500
	gaugePause = 20 * time.Millisecond
)

// Gauge measures folders that no quota counts, by walking them in the
// background: the room that files take, each hard link once per name. A folder
// of more than 500,000 entries stays unknown. It is for hosts without project
// quotas; nothing enforces what it measures.
type Gauge struct {
	mu   sync.Mutex
	last map[string]measured
}

type measured struct {
	bytes int64
	at    time.Time
}

// NewGauge makes a Gauge that knows nothing yet.
func NewGauge() *Gauge { return &Gauge{last: map[string]measured{}} }

// get gives what a folder used when it was measured last.
func (g *Gauge) get(path string) (bytes int64, at time.Time, ok bool) {
	if g == nil {
		return 0, time.Time{}, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.last[path]
	return m.bytes, m.at, ok
}

// Run measures what folders names, at once and every 15 minutes, one after the
// other, until ctx ends. folders is asked each time.
func (g *Gauge) Run(ctx context.Context, folders func() []string) {
	tick := time.NewTicker(gaugeEvery)
	defer tick.Stop()
	for {
		if g.round(ctx, folders()); ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// round measures each folder and forgets all others.
func (g *Gauge) round(ctx context.Context, folders []string) {
	known := make(map[string]measured, len(folders))
	for _, path := range folders {
		bytes, ok := walk(ctx, path)
		if ctx.Err() != nil {
			return
		}
		if ok {
			known[path] = measured{bytes, time.Now()}
		}
		g.mu.Lock()
		if ok {
			g.last[path] = known[path]
		}
		g.mu.Unlock()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = known
}

// walk sums the blocks of what is below a folder on its own file system. Links
// are not followed.
func walk(ctx context.Context, top string) (total int64, ok bool) {
	var first unix.Stat_t
	if err := unix.Lstat(top, &first); err != nil || first.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, false
	}
	left, batch := gaugeFiles, 0
	pause := time.NewTimer(gaugePause)
	defer pause.Stop()
	var folder func(path string, depth int) bool
	folder = func(path string, depth int) bool {
		d, err := os.Open(path)
		if err != nil {
			return gone(err)
		}
		defer d.Close()
		for {
			entries, err := d.ReadDir(gaugeBatch)
			for _, e := range entries {
				if left--; left < 0 || depth > gaugeDepth {
					return false
				}
				if batch++; batch >= gaugeBatch {
					batch = 0
					pause.Reset(gaugePause)
					select {
					case <-ctx.Done():
						return false
					case <-pause.C:
					}
				}
				var st unix.Stat_t
				name := path + "/" + e.Name()
				if unix.Lstat(name, &st) != nil || st.Dev != first.Dev {
					continue
				}
				total = add(total, st.Blocks*512)
				if e.Type()&fs.ModeDir != 0 && !folder(name, depth+1) {
					return false
				}
			}
			if err == io.EOF {
				return true
			}
			if err != nil {
				return gone(err)
			}
		}
	}
	total = first.Blocks * 512
	return total, folder(top, 0)
}
