// SPDX-License-Identifier: Apache-2.0

// Package look tells what is on a disk by the disk's own bytes, whatever file
// it came in: the partition table, the root hash in the signed kernel image's
// command line, and whether the root it names is whole. It takes nothing from
// the manifest of the bake, so that both can be held against each other.
package look

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/images/esp"
	"github.com/holdfast/holdfast/images/gpt"
	"github.com/holdfast/holdfast/images/layout"
	"github.com/holdfast/holdfast/images/pe"
	"github.com/holdfast/holdfast/images/verity"
)

// maxUKI bounds a kernel image in bytes; ours have about 22 MiB.
const maxUKI = 256 << 20

// Seen is what was found.
type Seen struct {
	// Bytes is the length of the disk.
	Bytes int64
	Table gpt.Table
	// RootHash is what the only kernel image on the ESP boots, 64 hex digits.
	RootHash string
}

// Disk looks at a disk of size bytes: it reads the ESP, and every block of the
// root that its kernel image names. progress (may be nil) hears bytes of the
// root.
func Disk(ctx context.Context, r io.ReaderAt, size int64, progress func(done, total int64)) (Seen, error) {
	s := Seen{Bytes: size}
	var err error
	if s.Table, err = gpt.Decode(r, size); err != nil {
		return s, err
	}
	part, ok := s.Table.Part(layout.ESPLabel)
	if !ok {
		return s, errors.New("the disk has no ESP: Holdfast did not bake it")
	}
	words, err := cmdline(io.NewSectionReader(r, part.Offset, part.Size), part.Size)
	if err != nil {
		return s, err
	}
	s.RootHash = words["roothash"]
	root, err := hex.DecodeString(s.RootHash)
	if err != nil || len(root) != 32 {
		return s, fmt.Errorf("the kernel image boots the root hash %q, want 64 hex digits", s.RootHash)
	}
	at, err := strconv.ParseInt(strings.TrimPrefix(words["systemd.verity_root_options"], "hash-offset="), 10, 64)
	if err != nil || at <= 0 {
		return s, errors.New("the kernel image does not say where the hash tree of its root is")
	}
	for _, p := range s.Table.Parts {
		if p.UUID == gpt.GUID(root[:16]) {
			return s, verity.Verify(ctx, io.NewSectionReader(r, p.Offset, p.Size), at, [32]byte(root), progress)
		}
	}
	return s, fmt.Errorf("no partition holds the root %.16s… that the kernel image boots", s.RootHash)
}

// cmdline is the kernel command line of the only kernel image, word by word.
func cmdline(r io.ReaderAt, size int64) (map[string]string, error) {
	files, err := esp.Read(r, size)
	if err != nil {
		return nil, fmt.Errorf("ESP: %w", err)
	}
	var words map[string]string
	for _, f := range files {
		if !strings.HasPrefix(strings.ToLower(f.Path), "efi/linux/") {
			continue
		}
		if words != nil {
			return nil, errors.New("the ESP holds two kernel images, a baked one has one")
		}
		if words, err = wordsOf(f); err != nil {
			return nil, fmt.Errorf("ESP: %s: %w", f.Path, err)
		}
	}
	if words == nil {
		return nil, errors.New("the ESP has no kernel image below EFI/Linux")
	}
	return words, nil
}

func wordsOf(f esp.File) (map[string]string, error) {
	if f.Size > maxUKI {
		return nil, fmt.Errorf("%d bytes are too many for a kernel image", f.Size)
	}
	in, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxUKI))
	if err != nil {
		return nil, err
	}
	program, err := pe.Parse(b)
	if err != nil {
		return nil, err
	}
	for _, s := range program.Sections {
		if s.Name != ".cmdline" {
			continue
		}
		words := map[string]string{}
		for _, w := range strings.Fields(strings.TrimRight(string(s.Data), "\x00")) {
			key, value, _ := strings.Cut(w, "=")
			words[key] = value
		}
		return words, nil
	}
	return nil, errors.New("it is no unified kernel image: it has no .cmdline")
}
