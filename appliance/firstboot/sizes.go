// SPDX-License-Identifier: Apache-2.0

package firstboot

import "fmt"

const (
	mib = int64(1) << 20
	gib = int64(1) << 30

	// chunk is what the pool hands out at once, in bytes. 128 KiB keeps the
	// mapping small and a snapshot's first write to a chunk cheap.
	chunk = 128 << 10

	// minFile is the least size of a volume: mkfs.xfs refuses less than
	// 300 MB, and a log of 64 MiB should not be most of it.
	minFile = 320 * mib

	// maxMetadata is the most a thin pool can use (lvmthin(7): 15.81 GiB).
	maxMetadata = 15 * gib

	// maxState caps the state volume where the disk is large: the rest is of
	// more use to data.
	maxState = 128 * gib
)

// Use says what a volume group is for.
type Use int

const (
	// Both: state and data, on a box whose only home is the system disk.
	Both Use = iota
	// StateOnly: the system disk of a box whose data lives on a data disk.
	StateOnly
	// DataOnly: a data disk.
	DataOnly
)

// Sizes is how the room of the volume group is shared out, in bytes. All are
// multiples of the extent.
type Sizes struct {
	// Metadata of the pool; LVM keeps a spare of the same size for repair.
	Metadata int64
	// Reserve stays free in the group, so that metadata can still grow on a
	// full box.
	Reserve int64
	Pool    int64
	// State and Data are virtual sizes; Snapshot is the room of the pool that
	// no volume may claim, so that one snapshot of data can grow in it. Their
	// sum is the pool: it is never overcommitted.
	State, Data, Snapshot int64
}

// Share divides a volume group of total bytes. The shares of the pool are
// state 40% (at most 128 GiB), snapshot 20% and data what is left; state has
// all of it where there is no data, and nothing where there is no state.
// Metadata is 1/512 of the group: 64 bytes for each chunk of 128 KiB
// (lvmthin(7)) are 1/2048, twice that with a snapshot that shares nothing any
// more, and as much again for fragmentation of its btree.
func Share(total, extent int64, use Use) (Sizes, error) {
	down := func(n int64) int64 { return n / extent * extent }
	up := func(n int64) int64 { return (n + extent - 1) / extent * extent }
	s := Sizes{
		Metadata: up(min(max(total/512, 16*mib), maxMetadata)),
		Reserve:  up(max(total/200, 16*mib)),
	}
	s.Pool = down(total - 2*s.Metadata - s.Reserve)
	if use == StateOnly {
		s.State = s.Pool
	} else {
		s.Snapshot = down(s.Pool / 5)
		if use == Both {
			s.State = down(min(s.Pool*2/5, maxState))
		}
		s.Data = s.Pool - s.State - s.Snapshot
	}
	if use != DataOnly && s.State < minFile || use != StateOnly && s.Data < minFile {
		what := "the state partition"
		if use == DataOnly {
			what = "the data disk"
		}
		return Sizes{}, fmt.Errorf("%s gives only %s, at least %s are needed; give the machine a larger disk and boot again", what, size(total), size(least(extent)))
	}
	return s, nil
}

// least is the smallest group that Share accepts whatever its use.
func least(extent int64) int64 {
	return (minFile+extent)*5/2 + 2*16*mib + 16*mib + 2*extent
}
