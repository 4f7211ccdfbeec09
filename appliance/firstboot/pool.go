// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/holdfast/holdfast/appliance/slot"
)

// Pool is the room of the thin pool that the data lies in, in bytes.
type Pool struct {
	// Size of the pool, Used of it, Free.
	Size, Used, Free int64
	// Kept is what would be free besides, were the kept generation's data
	// dropped.
	Kept int64
	// Metadata is the used share of the pool's map, 0 to 1.
	Metadata float64
}

// Short says whether the pool is about to fill up: less than a tenth of it is
// free, or its map is nearly full. With nothing but what the shares are made
// for it cannot come to that; a kept snapshot can.
func (p Pool) Short() bool { return p.Free < p.Size/10 || p.Metadata > 0.8 }

// Spare is how much may be written before the pool is short.
func (p Pool) Spare() int64 { return max(p.Free-p.Size/10, 0) }

// Room measures the pool.
func Room(ctx context.Context, env Env, rec slot.Record) (Pool, error) {
	d, _, err := atBoot(env)
	if err != nil {
		return Pool{}, err
	}
	rows, err := report(ctx, env, d.Device, "lvs", "lv", "lv_name,lv_size,data_percent,metadata_percent", d.Group)
	if err != nil {
		return Pool{}, err
	}
	keep := ""
	if rec.Kept != nil {
		keep = rec.Kept.Data
	}
	return measure(rows, keep)
}

// measure works out the room from lvs' rows. Without the kept snapshot, and
// with no trial, no two volumes share anything: what they then use is the sum
// of what each maps.
func measure(rows []map[string]string, kept string) (Pool, error) {
	var p Pool
	others, there := int64(0), false
	for _, row := range rows {
		n := numbers{row: row}
		bytes := n.get("lv_size")
		if n.err != nil {
			return Pool{}, n.err
		}
		// A thin volume that was never written to has no share.
		used, err := percent(row["data_percent"])
		if err != nil {
			return Pool{}, err
		}
		switch name := row["lv_name"]; name {
		case pool:
			if p.Metadata, err = percent(row["metadata_percent"]); err != nil {
				return Pool{}, err
			}
			p.Size, p.Used = bytes, share(bytes, used)
		case kept:
			there = true
		default:
			others += share(bytes, used)
		}
	}
	if p.Size == 0 {
		return Pool{}, fmt.Errorf("lvm reports no thin pool")
	}
	p.Free = p.Size - p.Used
	if there {
		p.Kept = max(p.Used-others, 0)
	}
	return p, nil
}

func share(bytes int64, part float64) int64 { return int64(math.Ceil(float64(bytes) * part)) }

func percent(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 0 || v > 100 || math.IsNaN(v) {
		return 0, fmt.Errorf("lvm says %q, want percent", s)
	}
	return v / 100, nil
}

// Relieve drops the kept generation's data where the pool runs short, never
// during a trial: the record first, so that nothing goes back to data that is
// not there, then the volume. It says whether it did.
func Relieve(ctx context.Context, env Env) (dropped bool, err error) {
	rec, err := slot.Load(env.Root)
	if err != nil || rec.Kept == nil || rec.Trial != nil {
		return false, err
	}
	p, err := Room(ctx, env, rec)
	if err != nil || !p.Short() {
		return false, err
	}
	rec, err = slot.Update(env.Root, func(r *slot.Record) error {
		if r.Trial == nil {
			r.Kept = nil
		}
		return nil
	})
	if err != nil || rec.Kept != nil {
		return false, err
	}
	return true, Settle(ctx, env, rec)
}
