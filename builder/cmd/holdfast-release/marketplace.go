// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/marketplace"
)

// maxSBOM bounds the bill of materials in bytes.
const maxSBOM = 64 << 20

type marketplaceOptions struct {
	json  bool
	tools toolsOptions
}

func marketplaceCommand() *cobra.Command {
	var o marketplaceOptions
	cmd := &cobra.Command{
		Use: "check-marketplace [DIST]", Short: "look into a baked disk for what marketplaces reject", Args: upToOne,
		Long: `Looks into a baked disk (the newest below dist/ by default) for what shops for
machine images reject: credentials, keys, open logins, leftovers. It reads the
bytes of the disk: boot partition, root, factory and the layers of the stack's
images. Nothing is started and nothing is changed. Needs root, to enter the
tools tree of the disk's lock.

Each row is ok, note (for a person to look at) or refused. The command fails
when one is refused. It does not look for known vulnerabilities.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return checkMarketplace(cmd.Context(), o, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "print the report as JSON")
	f.StringVar(&o.tools.cache, "cache", "", "the folder for slow work (default $HOLDFAST_CACHE, else holdfast in the user's cache folder)")
	return cmd
}

func checkMarketplace(ctx context.Context, o marketplaceOptions, args []string, answer, out io.Writer) error {
	dist, err := findDist(args)
	if err != nil {
		return err
	}
	disk, err := target.Open(dist)
	if err != nil {
		return err
	}
	defer disk.Close()
	pins, err := lock.Read(filepath.Join(dist, builder.LockName))
	if err != nil {
		return err
	}
	tree, err := toolsTree(ctx, pins, o.tools, out)
	if err != nil {
		return err
	}
	im, err := lookInto(ctx, disk, tree)
	if err != nil {
		return fmt.Errorf("%s: %w", dist, err)
	}
	rep := marketplace.Check(im)
	if o.json {
		e := json.NewEncoder(answer)
		e.SetIndent("", "  ")
		err = e.Encode(struct {
			Release  string `json:"release"`
			RootHash string `json:"root_hash"`
			marketplace.Report
		}{disk.Release(), disk.Manifest.RootHash, rep})
	} else {
		err = printReport(answer, disk.Release(), rep)
	}
	if err == nil && rep.Refused > 0 {
		err = fmt.Errorf("%s would be refused for %d of %d checks: the report says what to do for each", disk.Release(), rep.Refused, len(rep.Rows))
	}
	return err
}

// lookInto reads what the checks go by.
func lookInto(ctx context.Context, disk *target.Disk, tree *tools.Tree) (im marketplace.Image, err error) {
	im.Now = time.Now()
	if im.Boot, err = marketplace.ReadBoot(disk.File, disk.Size); err != nil {
		return im, err
	}
	if im.Root, err = readSquashfs(ctx, disk, tree, "root-a", marketplace.ReadRoot); err != nil {
		return im, err
	}
	if im.Factory, err = readSquashfs(ctx, disk, tree, "factory", marketplace.ReadFactory); err != nil {
		return im, err
	}
	if im.SBOM, err = readOptional(filepath.Join(disk.Dir, "sbom.cdx.json"), maxSBOM); err != nil {
		return im, err
	}
	text, err := readOptional(filepath.Join(disk.Dir, builder.CertName), 1<<20)
	if err != nil || text == nil {
		return im, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return im, errors.New("signing.crt is no PEM certificate: bake again")
	}
	im.Certificate, err = x509.ParseCertificate(block.Bytes)
	return im, err
}

// readSquashfs streams a partition of the disk through sqfs2tar of the tools
// tree. The program reads files only, so the squashfs is copied first.
func readSquashfs(ctx context.Context, disk *target.Disk, tree *tools.Tree, label string, read func(io.Reader) (*marketplace.Tree, error)) (*marketplace.Tree, error) {
	at, n, err := marketplace.Squashfs(disk.File, disk.Size, label)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "holdfast-check-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "image")
	if err := copyOut(ctx, disk.File, at, n, image); err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := tree.Run(ctx, sandbox.Cmd{Args: []string{"sqfs2tar", "/run/holdfast/in/image"}, Stdout: w,
			Binds: []sandbox.Bind{{Host: dir, Tree: "/run/holdfast/in", ReadOnly: true}}})
		w.CloseWithError(err)
		done <- err
	}()
	t, err := read(r)
	if err == nil {
		// What follows the end of the archive is padding.
		_, err = io.Copy(io.Discard, r)
	}
	r.Close()
	// A program that failed is why the stream ended early.
	if ran := <-done; ran != nil && ctx.Err() == nil && !errors.Is(ran, io.ErrClosedPipe) {
		err = ran
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("partition %s: %w", label, err)
	}
	return t, nil
}

func copyOut(ctx context.Context, from io.ReaderAt, at, n int64, to string) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 4<<20)
	for end := at + n; at < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		k, err := from.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
		if k == 0 {
			return fmt.Errorf("reading the disk: %w", err)
		}
		if _, err := f.Write(buf[:k]); err != nil {
			return fmt.Errorf("%w: set TMPDIR to a folder with %d MiB free", err, n>>20)
		}
		at += int64(k)
	}
	return f.Close()
}

// readOptional reads a file that may be absent, nil then.
func readOptional(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d MiB", name, limit>>20)
	}
	return b, err
}

func printReport(out io.Writer, release string, rep marketplace.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CHECK\tRESULT\tLOOKED AT")
	for _, r := range rep.Rows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.Check, r.Result, r.LookedAt)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	for _, r := range rep.Rows {
		if r.Result == marketplace.OK {
			continue
		}
		fmt.Fprintf(&b, "\n%s: %s\n", r.Check, r.Result)
		for _, f := range r.Found {
			fmt.Fprintf(&b, "  %s\n", f)
		}
		if r.More > 0 {
			fmt.Fprintf(&b, "  and %d more\n", r.More)
		}
		fmt.Fprintf(&b, "  why   %s\n  rule  %s\n  do    %s\n", r.Why, r.Rule, r.Remedy)
	}
	fmt.Fprintf(&b, "\n%s: %d checks, %d refused, %d to look at\n", release, len(rep.Rows), rep.Refused, rep.Notes)
	_, err := io.WriteString(out, b.String())
	return err
}
