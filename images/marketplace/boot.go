// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/holdfast/holdfast/images/esp"
	"github.com/holdfast/holdfast/images/gpt"
	"github.com/holdfast/holdfast/images/pe"
)

const (
	// maxProgram bounds an EFI program in bytes, maxSmall another file of the
	// ESP whose content is kept.
	maxProgram = 512 << 20
	maxSmall   = 1 << 20
)

// Boot is what firmware and boot loader go by.
type Boot struct {
	// Files are all files of the EFI system partition.
	Files []string
	// Programs are the EFI programs among them.
	Programs []Program
	// Small are the contents of other files of at most 1 MiB, by path.
	Small map[string][]byte
}

// Program is an EFI program.
type Program struct {
	Path string
	// Image is the whole program.
	Image []byte
	// Kernel says it has one, so it is a unified kernel image.
	Kernel bool
	// Cmdlines are the kernel command lines in it; an add-on has one too.
	Cmdlines []string
}

// ReadBoot reads the EFI system partition of a disk.
func ReadBoot(disk io.ReaderAt, size int64) (*Boot, error) {
	table, err := gpt.Decode(disk, size)
	if err != nil {
		return nil, err
	}
	for _, p := range table.Parts {
		if p.Type != gpt.TypeESP {
			continue
		}
		at, n := p.Offset, p.Size
		files, err := esp.Read(io.NewSectionReader(disk, at, n), n)
		if err != nil {
			return nil, err
		}
		return readBoot(files)
	}
	return nil, errors.New("the disk has no EFI system partition: not a Holdfast disk")
}

func readBoot(files []esp.File) (*Boot, error) {
	b := &Boot{Small: map[string][]byte{}}
	for _, f := range files {
		b.Files = append(b.Files, f.Path)
		program := strings.HasSuffix(strings.ToLower(f.Path), ".efi")
		if program && f.Size > maxProgram {
			return nil, fmt.Errorf("%s has %d bytes: no EFI program is that large", f.Path, f.Size)
		}
		if !program && f.Size > maxSmall {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(io.LimitReader(r, maxProgram))
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		if !program {
			b.Small[f.Path] = data
			continue
		}
		p := Program{Path: f.Path, Image: data}
		parsed, err := pe.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		for _, s := range parsed.Sections {
			switch s.Name {
			case ".linux":
				p.Kernel = true
			case ".cmdline":
				p.Cmdlines = append(p.Cmdlines, string(bytes.TrimRight(s.Data, "\x00\n")))
			}
		}
		b.Programs = append(b.Programs, p)
	}
	return b, nil
}

// Squashfs finds the squashfs in the partition with that label: where it
// begins on the disk and how long it is, both in bytes. The hash tree that may
// follow it is not part of it.
func Squashfs(disk io.ReaderAt, size int64, label string) (offset, length int64, err error) {
	table, err := gpt.Decode(disk, size)
	if err != nil {
		return 0, 0, err
	}
	p, ok := table.Part(label)
	if !ok {
		return 0, 0, fmt.Errorf("the disk has no partition %q: not a Holdfast disk", label)
	}
	at, n := p.Offset, p.Size
	// Superblock of squashfs 4.0: magic at 0, bytes used at 40.
	var sb [48]byte
	if _, err := disk.ReadAt(sb[:], at); err != nil {
		return 0, 0, fmt.Errorf("partition %s: %w", label, err)
	}
	used := binary.LittleEndian.Uint64(sb[40:])
	if string(sb[:4]) != "hsqs" || used < 96 || used > uint64(n) {
		return 0, 0, fmt.Errorf("partition %s holds no squashfs", label)
	}
	return at, int64(used), nil
}
