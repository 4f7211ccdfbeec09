// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/status/facts"
	"github.com/holdfast/holdfast/images/verity"
)

func doctorVerb(o *options) *cobra.Command {
	var scan bool
	var device, hash string
	var offset int64
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Examine the box",
		Long: `Examine the box.

--scan-root reads every block of the root partition, data and hash tree, and
holds it against the root hash the machine was booted with. It reads the
partition beneath dm-verity, so that it finds each damage without the kernel
stopping at the first. Exit code 0: every block is what was sealed. Exit code 5:
the first block that is not, with its byte offset on the partition.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !scan {
				return exit(ExitUsage, "say what to examine: holdfast doctor --scan-root")
			}
			return scanRoot(c.Context(), o, device, hash, offset)
		},
	}
	f := c.Flags()
	f.BoolVar(&scan, "scan-root", false, "read the whole root partition against its root hash")
	f.StringVar(&device, "device", "", "partition or image to scan (default: the one this machine runs from)")
	f.StringVar(&hash, "root-hash", "", "with --device: the root hash, 64 hex digits")
	f.Int64Var(&offset, "hash-offset", 0, "with --device: byte offset of the dm-verity superblock")
	return c
}

func scanRoot(ctx context.Context, o *options, device, hash string, offset int64) error {
	if device == "" {
		v, err := facts.MountedVerity("")
		if err != nil {
			return fmt.Errorf("the root cannot be scanned: %w; on another machine name --device, --root-hash and --hash-offset", err)
		}
		device, hash = filepath.Join("/dev", v.Device), v.Hash
		// The kernel counts from the first hash block; the superblock is the
		// block before.
		offset = v.HashStart - verity.BlockSize
	}
	raw, err := hex.DecodeString(hash)
	if err != nil || len(raw) != 32 {
		return exit(ExitUsage, "--root-hash %q is not 64 hex digits", hash)
	}
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	shown := int64(-1)
	err = verity.Verify(ctx, f, offset, [32]byte(raw), func(done, total int64) {
		if p := done * 10 / max(1, total); p != shown {
			shown = p
			fmt.Fprintf(o.io.Err, "holdfast: scanned %d%% of %d MB\n", p*10, total/1_000_000)
		}
	})
	var bad *verity.BadBlockError
	if errors.As(err, &bad) {
		return exit(ExitCorrupt, "%s: %v; do not trust this machine's root, reinstall it from a good disk image (data on the state partition is kept apart)", device, bad)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	fmt.Fprintf(o.io.Out, "%s: every block is what was sealed, root hash %s\n", device, hash)
	return nil
}
