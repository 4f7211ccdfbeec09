// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"fmt"
	"strings"
)

// MaxBadBlocks bounds the blocks a BadBlocksError names: enough to see a
// pattern, and a wiped disk does not fill the memory.
const MaxBadBlocks = 64

// BadBlockError is one block that does not match the tree or can't be read.
type BadBlockError struct {
	// Offset is where the block begins on the device, in bytes.
	Offset int64
	// Level is -1 for a data block, else the level of the tree, 0 lowest.
	Level int
	// Err is why it can't be read; nil for a block that differs.
	Err error
}

func (e *BadBlockError) Error() string {
	what := "is not what was sealed"
	if e.Err != nil {
		what = fmt.Sprintf("can't be read: %v", e.Err)
	}
	if e.Level < 0 {
		return fmt.Sprintf("dm-verity: data block %d at byte %d %s", e.Offset/BlockSize, e.Offset, what)
	}
	return fmt.Sprintf("dm-verity: hash block at byte %d (level %d) %s", e.Offset, e.Level, what)
}

// Unwrap gives the read error, nil for a block that differs.
func (e *BadBlockError) Unwrap() error { return e.Err }

// BadBlocksError is all that Verify found.
type BadBlocksError struct {
	// Blocks are the first MaxBadBlocks: hash blocks from the top of the tree
	// down, then data blocks, each row by offset. At least one.
	Blocks []BadBlockError
	// Total counts the bad blocks, named or not.
	Total int64
	// Unjudged counts data blocks that nothing can be said of, because the
	// hash block that vouches for them is bad; they are not in Total. To the
	// kernel they are as bad as the others.
	Unjudged int64
}

// Error is one line, like BadBlockError's where there is one bad block.
func (e *BadBlocksError) Error() string {
	var b strings.Builder
	b.WriteString(e.Blocks[0].Error())
	if e.Total > 1 {
		fmt.Fprintf(&b, "; %d bad blocks in all, at bytes", e.Total)
		for i, block := range e.Blocks {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, " %d", block.Offset)
		}
		if more := e.Total - int64(len(e.Blocks)); more > 0 {
			fmt.Fprintf(&b, " and %d more", more)
		}
	}
	if e.Unjudged > 0 {
		fmt.Fprintf(&b, "; %d data blocks can't be judged without their hash blocks", e.Unjudged)
	}
	return b.String()
}

// Unwrap gives the first bad block.
func (e *BadBlocksError) Unwrap() error { return &e.Blocks[0] }

// SuperblockError is a superblock that is not one of ours, or whose numbers
// can't be right.
type SuperblockError struct{ Text string }

func (e *SuperblockError) Error() string { return "dm-verity: " + e.Text }

func badSuper(format string, args ...any) error {
	return &SuperblockError{fmt.Sprintf(format, args...)}
}
