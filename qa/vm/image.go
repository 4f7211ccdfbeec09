// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/images/esp"
)

// maxManifest bounds manifest.json.
const maxManifest = 4 << 20

// Image is the output folder of a bake.
type Image struct {
	Dir      string
	Manifest builder.Manifest
}

// OpenImage reads the manifest of an output folder and checks that its disk is
// there at the length the manifest says.
func OpenImage(dir string) (*Image, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(abs, "manifest.json"))
	if err != nil {
		return nil, fmt.Errorf("%w: `make image` bakes one, HOLDFAST_IMAGE names another", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, err
	}
	img := &Image{Dir: abs}
	if err := json.Unmarshal(data, &img.Manifest); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	info, err := os.Stat(img.Disk())
	if err != nil {
		return nil, err
	}
	for _, file := range img.Manifest.Files {
		if file.Name == "disk.raw" && file.Bytes != info.Size() {
			return nil, fmt.Errorf("%s has %d bytes, its manifest says %d: bake again", img.Disk(), info.Size(), file.Bytes)
		}
	}
	return img, nil
}

// Newest finds the output folder of the latest bake below dist.
func Newest(dist string) (*Image, error) {
	found, err := filepath.Glob(filepath.Join(dist, "*", "manifest.json"))
	if err != nil {
		return nil, err
	}
	var newest string
	var when time.Time
	for _, name := range found {
		info, err := os.Stat(name)
		if err == nil && info.ModTime().After(when) && !strings.HasPrefix(filepath.Base(filepath.Dir(name)), ".") {
			newest, when = filepath.Dir(name), info.ModTime()
		}
	}
	if newest == "" {
		return nil, fmt.Errorf("no image below %s: `make image` bakes one, HOLDFAST_IMAGE names another", dist)
	}
	return OpenImage(newest)
}

// Disk is the path of disk.raw.
func (i *Image) Disk() string { return filepath.Join(i.Dir, "disk.raw") }

// Part finds a partition by its label.
func (i *Image) Part(label string) (builder.ManifestPartition, error) {
	for _, p := range i.Manifest.Partitions {
		if p.Label == label {
			return p, nil
		}
	}
	return builder.ManifestPartition{}, fmt.Errorf("%s: the manifest has no partition %q", i.Dir, label)
}

// Locate gives the place on the disk, in bytes, of the first data block of the
// first of the files that is there; the file system is the squashfs in the
// partition.
func (i *Image) Locate(part string, files ...string) (Block, error) {
	return i.locate(part, func(fs *squash) (b Block, err error) {
		for _, file := range files {
			if b, err = fs.firstBlock(file); err == nil {
				return b, nil
			}
		}
		return Block{}, err
	})
}

// LocateLargest is Locate for the largest file of a folder.
func (i *Image) LocateLargest(part, dir string) (Block, error) {
	return i.locate(part, func(fs *squash) (Block, error) {
		name, err := fs.largest(dir)
		if err != nil {
			return Block{}, err
		}
		return fs.firstBlock(dir + "/" + name)
	})
}

func (i *Image) locate(part string, find func(*squash) (Block, error)) (Block, error) {
	p, err := i.Part(part)
	if err != nil {
		return Block{}, err
	}
	f, err := os.Open(i.Disk())
	if err != nil {
		return Block{}, err
	}
	defer f.Close()
	fs, err := openSquash(io.NewSectionReader(f, p.Offset, p.Bytes))
	if err != nil {
		return Block{}, fmt.Errorf("partition %s: %w", part, err)
	}
	b, err := find(fs)
	if err != nil {
		return Block{}, fmt.Errorf("partition %s: %w", part, err)
	}
	b.Offset += p.Offset
	return b, nil
}

// sector is the unit in which FAT places files.
const sector = 512

// LocateUKI gives the place on the disk of a byte in the middle of the only
// unified kernel image on the ESP. It looks for the file's bytes, so it need
// not know how FAT chains clusters.
func (i *Image) LocateUKI() (int64, error) {
	p, err := i.Part("esp")
	if err != nil {
		return 0, err
	}
	f, err := os.Open(i.Disk())
	if err != nil {
		return 0, err
	}
	defer f.Close()
	part := io.NewSectionReader(f, p.Offset, p.Bytes)
	files, err := esp.Read(part, p.Bytes)
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		if !strings.HasPrefix(strings.ToLower(strings.TrimLeft(file.Path, "/")), "efi/linux/") {
			continue
		}
		r, err := file.Open()
		if err != nil {
			return 0, err
		}
		defer r.Close()
		middle := file.Size / 2 / sector * sector
		want := make([]byte, sector)
		if _, err := io.CopyN(io.Discard, r, middle); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(r, want); err != nil {
			return 0, err
		}
		at, err := findSector(part, want)
		return p.Offset + at + sector/2, err
	}
	return 0, fmt.Errorf("%s: the ESP has no file below EFI/Linux", i.Dir)
}

// findSector finds the only sector of r that holds want.
func findSector(r io.Reader, want []byte) (int64, error) {
	found := int64(-1)
	in := bufio.NewReaderSize(r, 1<<20)
	got := make([]byte, sector)
	for at := int64(0); ; at += sector {
		if _, err := io.ReadFull(in, got); err == io.EOF {
			break
		} else if err != nil {
			return 0, err
		}
		if !bytes.Equal(got, want) {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("the sectors at %d and %d are equal, so neither tells where the file is", found, at)
		}
		found = at
	}
	if found < 0 {
		return 0, errors.New("no sector of the ESP holds the middle of the file")
	}
	return found, nil
}
