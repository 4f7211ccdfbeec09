// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/status/facts"
	"github.com/holdfast/holdfast/images/verity"
)

func doctorVerb(o *options) *cobra.Command {
	var scan bool
	var t scanTarget
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Examine the box",
		Long: `Examine the box.

--scan-root reads every block of the root partition, data and hash tree, and
holds it against the root hash the machine was booted with. It reads the
partition beneath dm-verity and past the page cache, so that it finds all damage
that is on the disk now. Exit code 0: every block is what was sealed. Exit code
5: some are not; standard output has a line for each, with its byte offset on
the partition, up to 64.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !scan {
				return exit(ExitUsage, "say what to examine: holdfast doctor --scan-root")
			}
			return scanRoot(c.Context(), o, t)
		},
	}
	f := c.Flags()
	f.BoolVar(&scan, "scan-root", false, "read the whole root partition against its root hash")
	f.StringVar(&t.device, "device", "", "partition or image to scan (default: the one this machine runs from)")
	f.StringVar(&t.hash, "root-hash", "", "with --device: the root hash, 64 hex digits")
	f.Int64Var(&t.offset, "hash-offset", 0, "with --device: byte offset of the dm-verity superblock")
	return c
}

// scanTarget is what to scan.
type scanTarget struct {
	device, hash string
	// offset of the dm-verity superblock in bytes.
	offset int64
	// mapped is the dm-verity device over it, "" where the device was named
	// by hand.
	mapped string
}

// running is the root this machine runs from.
func (t *scanTarget) running() error {
	v, err := facts.MountedVerity("")
	if err != nil {
		return fmt.Errorf("the root cannot be scanned: %w; on another machine name --device, --root-hash and --hash-offset", err)
	}
	// The kernel counts from the first hash block; the superblock is the
	// block before.
	*t = scanTarget{
		device: filepath.Join("/dev", v.Device), hash: v.Hash, offset: v.HashStart - verity.BlockSize,
		mapped: filepath.Join("/dev", v.Mapped),
	}
	return nil
}

func scanRoot(ctx context.Context, o *options, t scanTarget) error {
	if t.device == "" {
		if err := t.running(); err != nil {
			return err
		}
	}
	raw, err := hex.DecodeString(t.hash)
	if err != nil || len(raw) != 32 {
		return exit(ExitUsage, "--root-hash %q is not 64 hex digits", t.hash)
	}
	f, err := openUncached(t.device)
	if err != nil {
		return err
	}
	defer f.Close()
	shown := int64(-1)
	err = verity.Verify(ctx, f, t.offset, [32]byte(raw), func(done, total int64) {
		if p := done * 10 / max(1, total); p != shown {
			shown = p
			fmt.Fprintf(o.io.Err, "holdfast: scanned %d%% of %d MB\n", p*10, total/1_000_000)
		}
	})
	if err == nil {
		fmt.Fprintf(o.io.Out, "%s: every block is what was sealed, root hash %s\n", t.device, t.hash)
		return nil
	}
	const do = "do not trust this machine's root, reinstall it from a good disk image (data on the state partition is kept apart)"
	var bad *verity.BadBlocksError
	var super *verity.SuperblockError
	switch {
	case errors.As(err, &bad):
		for i := range bad.Blocks {
			fmt.Fprintf(o.io.Out, "%s: %v\n", t.device, &bad.Blocks[i])
		}
		if t.mapped != "" {
			tellKernel(t.mapped, bad.Blocks)
		}
		return exit(ExitCorrupt, "%s: %s; %s", t.device, counts(bad), do)
	// Where the kernel said where it is, it can't be the wrong place.
	case t.mapped != "" && errors.As(err, &super):
		return exit(ExitCorrupt, "%s: %v; %s", t.device, super, do)
	}
	return fmt.Errorf("%s: %w", t.device, err)
}

func counts(bad *verity.BadBlocksError) string {
	text := "1 block is not what was sealed"
	if bad.Total != 1 {
		text = fmt.Sprintf("%d blocks are not what was sealed", bad.Total)
	}
	if more := bad.Total - int64(len(bad.Blocks)); more > 0 {
		text += fmt.Sprintf(", the first %d are listed", len(bad.Blocks))
	}
	if bad.Unjudged > 0 {
		text += fmt.Sprintf(", and %d data blocks can't be judged without their hash blocks", bad.Unjudged)
	}
	return text
}

// tellKernel reads bad data blocks through dm-verity. The kernel then knows of
// them too: it says so on the console, and `holdfast status`, which asks the
// kernel, no longer calls the root verified. A read that fails is the aim.
func tellKernel(mapped string, blocks []verity.BadBlockError) {
	f, err := openUncached(mapped)
	if err != nil {
		return // the scan's own answer stands without it
	}
	defer f.Close()
	b := make([]byte, verity.BlockSize)
	for _, block := range blocks {
		if block.Level < 0 {
			f.ReadAt(b, block.Offset)
		}
	}
}
