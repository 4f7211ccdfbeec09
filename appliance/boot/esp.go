// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/holdfast/holdfast/images/pe"
)

// maxLoader bounds systemd-boot in bytes.
const maxLoader = 16 << 20

// PlaceTrial puts a kernel image into EFI/Linux with one try. What is there
// under the number already goes first: a cut after that leaves a trial that
// was never placed. The file gets its name when all of it is on disk.
func (e *ESP) PlaceTrial(number int, uki io.Reader) error {
	old, err := e.of(Linux, number)
	if err != nil {
		return err
	}
	for _, x := range old {
		if !x.Counted() {
			return fmt.Errorf("the kernel image of generation %d is committed already", number)
		}
		if err := e.fs.Remove(x.path()); err != nil {
			return err
		}
	}
	trial := Entry{Number: number, Place: Linux, TriesLeft: 1}
	if err := e.fs.Put(trial.path(), uki, MaxUKI); err != nil {
		return fmt.Errorf("the kernel image of generation %d cannot be written to the ESP: %w", number, err)
	}
	r, size, err := e.fs.Open(trial.path())
	if err != nil {
		return err
	}
	if RootHash(r, size) == "" {
		return errors.Join(fmt.Errorf("the kernel image of generation %d names no root hash; it was not placed", number), e.fs.Remove(trial.path()))
	}
	return nil
}

// PlaceTrialFromKept puts a copy of a kept image into EFI/Linux with one try,
// under the trial's number.
func (e *ESP) PlaceTrialFromKept(kept, number int) error {
	r, size, err := e.fs.Open(Entry{Number: kept, Place: Kept, TriesLeft: -1}.path())
	if err != nil {
		return fmt.Errorf("%w: the one of the kept generation %d: %w", ErrNoImage, kept, err)
	}
	return e.PlaceTrial(number, io.NewSectionReader(r, 0, size))
}

// Rearm gives a spent image its one try again. One that has it is left alone.
func (e *ESP) Rearm(number int) error {
	return e.retry(number, Entry{Number: number, Place: Linux, TriesLeft: 1})
}

// Bless takes the counter off an image's name: from then on it boots, and
// sorts before all older ones. One without a counter is left alone.
func (e *ESP) Bless(number int) error {
	return e.retry(number, Entry{Number: number, Place: Linux, TriesLeft: -1})
}

// retry gives the image of a number the name that want has. Where a cut in an
// earlier rename left both names, for the same bytes, the other one goes.
func (e *ESP) retry(number int, want Entry) error {
	list, err := e.of(Linux, number)
	if err != nil {
		return err
	}
	named := func(x Entry) bool { return x.Name() == want.Name() }
	switch i := slices.IndexFunc(list, func(x Entry) bool { return !x.Counted() }); {
	case len(list) == 0:
		return fmt.Errorf("%w: the one of generation %d", ErrNoImage, number)
	case i >= 0 && want.Counted():
		return fmt.Errorf("the kernel image of generation %d is committed already", number)
	case !slices.ContainsFunc(list, named):
		if err := e.fs.Rename(list[0].path(), want.path()); err != nil {
			return err
		}
		list = list[1:]
	}
	for _, x := range list {
		if named(x) {
			continue
		}
		if err := e.fs.Remove(x.path()); err != nil {
			return err
		}
	}
	return nil
}

// Keep moves an image from EFI/Linux to EFI/holdfast: a copy, and then the
// first is removed, so that a cut leaves one or both. Where only the copy is
// there it is done.
func (e *ESP) Keep(number int) error {
	from, to := Entry{Number: number, Place: Linux, TriesLeft: -1}, Entry{Number: number, Place: Kept, TriesLeft: -1}
	r, size, err := e.fs.Open(from.path())
	if err != nil {
		if there, terr := e.exists(to.path()); terr == nil && there {
			return nil
		}
		return fmt.Errorf("%w: the one of generation %d: %w", ErrNoImage, number, err)
	}
	same, err := e.same(to.path(), r, size)
	if err != nil {
		return err
	}
	if !same {
		if err := e.fs.Put(to.path(), io.NewSectionReader(r, 0, size), MaxUKI); err != nil {
			return fmt.Errorf("the kernel image of generation %d cannot be kept: %w", number, err)
		}
		if same, err = e.same(to.path(), r, size); err != nil || !same {
			return errors.Join(fmt.Errorf("the kernel image of generation %d was not copied as it is; the ESP may be damaged", number), err)
		}
	}
	return e.fs.Remove(from.path())
}

// Remove removes an image; one that is not there is no error.
func (e *ESP) Remove(x Entry) error {
	if folders[x.Place] == "" {
		return fmt.Errorf("%q is no place of kernel images", x.Place)
	}
	return e.fs.Remove(x.path())
}

// UpdateLoader puts systemd-boot into its two places, where they hold other
// bytes: one is written, read back and on disk before the other is touched,
// so there is always one that starts. It says whether anything was written.
func (e *ESP) UpdateLoader(program []byte) (changed bool, err error) {
	if len(program) > maxLoader {
		return false, fmt.Errorf("systemd-boot of %d bytes, at most %d are taken", len(program), maxLoader)
	}
	if _, err := pe.Parse(program); err != nil {
		return false, fmt.Errorf("systemd-boot of the release: %w", err)
	}
	r, n := bytes.NewReader(program), int64(len(program))
	for _, name := range loaders {
		same, err := e.same(name, r, n)
		if err != nil {
			return changed, err
		}
		if same {
			continue
		}
		changed = true
		if err := e.fs.Put(name, bytes.NewReader(program), maxLoader); err != nil {
			return changed, fmt.Errorf("%s: %w", name, err)
		}
		if same, err = e.same(name, r, n); err != nil || !same {
			return changed, errors.Join(fmt.Errorf("%s does not hold what was written; the other copy was left alone", name), err)
		}
	}
	return changed, nil
}

// same compares a file with size bytes of r; one that is not there differs.
func (e *ESP) same(name string, r io.ReaderAt, size int64) (bool, error) {
	there, err := e.exists(name)
	if err != nil || !there {
		return false, err
	}
	f, n, err := e.fs.Open(name)
	if err != nil || n != size {
		return false, err
	}
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); at < size; {
		k := min(size-at, int64(len(a)))
		if _, err := io.ReadFull(io.NewSectionReader(f, at, k), a[:k]); err != nil {
			return false, err
		}
		if _, err := io.ReadFull(io.NewSectionReader(r, at, k), b[:k]); err != nil {
			return false, err
		}
		if !bytes.Equal(a[:k], b[:k]) {
			return false, nil
		}
		at += k
	}
	return true, nil
}
