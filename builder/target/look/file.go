// SPDX-License-Identifier: Apache-2.0

package look

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast/holdfast/images/gcetar"
	"github.com/holdfast/holdfast/images/ova"
	"github.com/holdfast/holdfast/images/vmdk"
)

// Kinds are the files that File reads, by how their names end.
const Kinds = ".raw, .ova, .vmdk or .tar.gz"

// IsFile says whether a name is that of a disk that File reads.
func IsFile(name string) bool {
	for _, end := range []string{".raw", ".ova", ".vmdk", ".tar.gz"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// File looks at the disk in a file. An OVA's digests are checked first. The
// disk of a .tar.gz is unpacked, sparse, into a temporary file on the way.
func File(ctx context.Context, name string, progress func(done, total int64)) (Seen, error) {
	f, err := os.Open(name)
	if err != nil {
		return Seen{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Seen{}, err
	}
	s, err := content(ctx, f, st.Size(), progress)
	if err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func content(ctx context.Context, f *os.File, size int64, progress func(done, total int64)) (Seen, error) {
	switch name := f.Name(); {
	case strings.HasSuffix(name, ".raw"):
		return Disk(ctx, f, size, progress)
	case strings.HasSuffix(name, ".vmdk"):
		return inVMDK(ctx, f, size, progress)
	case strings.HasSuffix(name, ".ova"):
		a, err := ova.Open(f, size)
		if err == nil {
			err = a.Verify(ctx)
		}
		if err != nil {
			return Seen{}, err
		}
		d, err := a.Disk()
		if err != nil {
			return Seen{}, err
		}
		return inVMDK(ctx, d, d.Size(), progress)
	case strings.HasSuffix(name, ".tar.gz"):
		return inTar(ctx, f, progress)
	}
	return Seen{}, fmt.Errorf("this is not a disk by its name: want %s", Kinds)
}

func inVMDK(ctx context.Context, r io.ReaderAt, size int64, progress func(done, total int64)) (Seen, error) {
	d, err := vmdk.Open(r, size)
	if err != nil {
		return Seen{}, err
	}
	return Disk(ctx, d, d.Capacity(), progress)
}

func inTar(ctx context.Context, f *os.File, progress func(done, total int64)) (Seen, error) {
	img, err := gcetar.Open(f)
	if err != nil {
		return Seen{}, err
	}
	raw, err := os.CreateTemp(filepath.Dir(f.Name()), ".look-*")
	if err != nil {
		return Seen{}, err
	}
	defer raw.Close()
	// Nameless from now on: a kill leaves nothing.
	if err := os.Remove(raw.Name()); err != nil {
		return Seen{}, err
	}
	if err := raw.Truncate(img.Size); err != nil {
		return Seen{}, err
	}
	err = img.Each(func(off int64, b []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := raw.WriteAt(b, off)
		return err
	})
	if err != nil {
		return Seen{}, err
	}
	return Disk(ctx, raw, img.Size, progress)
}
