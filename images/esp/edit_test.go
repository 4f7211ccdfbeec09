// SPDX-License-Identifier: Apache-2.0

package esp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// tornDisk is a disk whose writes are kept apart until Sync: a cut loses any
// of those since then, sector by sector.
type tornDisk struct {
	b       []byte
	pending []tornWrite
	// cut stops at the write or sync of that number; -1 never.
	cut, n int
}

type tornWrite struct {
	off  int64
	data []byte
}

var errTorn = errors.New("the power failed")

func (d *tornDisk) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(d.b)) {
		return 0, io.ErrUnexpectedEOF
	}
	copy(p, d.b[off:])
	for _, w := range d.pending {
		for i := range w.data {
			if at := w.off + int64(i) - off; at >= 0 && at < int64(len(p)) {
				p[at] = w.data[i]
			}
		}
	}
	return len(p), nil
}

func (d *tornDisk) step() error {
	if d.n++; d.cut >= 0 && d.n > d.cut {
		return errTorn
	}
	return nil
}

func (d *tornDisk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.step(); err != nil {
		return 0, err
	}
	d.pending = append(d.pending, tornWrite{off, slices.Clone(p)})
	return len(p), nil
}

func (d *tornDisk) Sync() error {
	if err := d.step(); err != nil {
		return err
	}
	d.settle(func() bool { return true })
	return nil
}

// settle lets each pending sector come to the disk where keep says so.
func (d *tornDisk) settle(keep func() bool) {
	for _, w := range d.pending {
		for at := int64(0); at < int64(len(w.data)); {
			k := min(sector-(w.off+at)%sector, int64(len(w.data))-at)
			if keep() {
				copy(d.b[w.off+at:], w.data[at:at+k])
			}
			at += k
		}
	}
	d.pending = nil
}

// editSize is the least that is FAT32: clusters of one sector.
const editSize = 34 << 20

func editImage(t testing.TB, files []File) []byte {
	t.Helper()
	m := memory(make([]byte, editSize))
	if err := Write(m, editSize, files, 1, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	return m
}

type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }
func (m memory) ReadAt(p []byte, off int64) (int, error) {
	if off > int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(p, m[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// content is what an editor finds, by path.
func contents(t testing.TB, v *Volume, dirs ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, dir := range dirs {
		list, err := v.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Dir {
				continue
			}
			r, n, err := v.Open(dir + "/" + e.Name)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(io.NewSectionReader(r, 0, n))
			if err != nil {
				t.Fatal(err)
			}
			out[dir+"/"+e.Name] = string(b)
		}
	}
	return out
}

// TestEditAsReadSees: what the editor did is what Read, written apart, finds,
// and nothing is lost or counted wrong.
func TestEditAsReadSees(t *testing.T) {
	img := editImage(t, []File{{Path: "EFI/Linux/holdfast-0000000001.efi", Data: bytes.Repeat([]byte("a"), 5000)}, {Path: "loader/loader.conf", Data: []byte("x")}})
	d := &tornDisk{b: img, cut: -1}
	v, err := Edit(d, editSize)
	if err != nil {
		t.Fatal(err)
	}
	free, _ := v.Free()
	want := map[string]string{"EFI/Linux/holdfast-0000000001.efi": strings.Repeat("a", 5000), "loader/loader.conf": "x"}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		names := slices.Sorted(maps.Keys(want))
		name := names[r.IntN(len(names))]
		fresh := fmt.Sprintf("EFI/%s/some-long-name-of-a-file-%d+1.efi", []string{"Linux", "holdfast", "a/b"}[r.IntN(3)], i)
		switch op := r.IntN(4); {
		case op == 0 && len(want) < 60:
			text := strings.Repeat(fmt.Sprint(i), r.IntN(3000))
			if err := v.Put(fresh, strings.NewReader(text), 1<<20); err != nil {
				t.Fatal(err)
			}
			want[fresh] = text
		case op == 1:
			text := strings.Repeat("n", r.IntN(9000))
			if err := v.Put(name, strings.NewReader(text), 1<<20); err != nil {
				t.Fatal(err)
			}
			want[name] = text
		case op == 2:
			to := name[:strings.LastIndexByte(name, '/')] + fmt.Sprintf("/%s%d", strings.Repeat("r", r.IntN(90)), i)
			if err := v.Rename(name, to); err != nil {
				t.Fatal(err)
			}
			want[to] = want[name]
			delete(want, name)
		case op == 3 && len(want) > 3:
			if err := v.Remove(name); err != nil {
				t.Fatal(err)
			}
			delete(want, name)
		}
	}
	got := map[string]string{}
	list, err := Read(memory(img), editSize)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[f.Path] = string(b)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("got %d files, want %d", len(got), len(want))
	}
	for path := range want {
		if err := v.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	// Folders stay, and how long they grew.
	if now, _ := v.Free(); free-now > 64<<10 || now > free+8<<10 {
		t.Errorf("%d bytes are free without files, and there were %d", now, free)
	}
	again, err := Edit(d, editSize)
	if err != nil || !again.sound {
		t.Fatalf("read again: %v", err)
	}
	a, _ := again.Free()
	if b, _ := v.Free(); a != b {
		t.Errorf("%d bytes are free after reading again, and %d before", a, b)
	}
}

// TestEditPowerCuts cuts each change before each of its writes and syncs, and
// loses any of the writes since the last sync. There is the old state or the
// new one; only a rename that finds no room may leave both names.
func TestEditPowerCuts(t *testing.T) {
	const l = "EFI/Linux/"
	old, big := strings.Repeat("o", 1300), strings.Repeat("b", 2000)
	first := map[string]string{l + "holdfast-0000000001.efi": old, l + "holdfast-0000000002+1.efi": big}
	// Ten more names fill the folder's sectors in other ways.
	for name, pad := range map[string]int{"few": 0, "a sector": 3, "more": 11} {
		files := []File{{Path: l + "holdfast-0000000001.efi", Data: []byte(old)}, {Path: l + "holdfast-0000000002+1.efi", Data: []byte(big)}}
		before := maps.Clone(first)
		for i := range pad {
			path := fmt.Sprintf("%sother-%d", l, i)
			files = append(files, File{Path: path, Data: []byte("p")})
			before[path] = "p"
		}
		img := editImage(t, files)
		with := func(change func(m map[string]string)) map[string]string {
			m := maps.Clone(before)
			change(m)
			return m
		}
		for _, c := range []struct {
			name string
			do   func(v *Volume) error
			want map[string]string
			both map[string]string
		}{
			{name: "put", do: func(v *Volume) error { return v.Put(l+"holdfast-0000000003+1.efi", strings.NewReader(old), 1<<20) },
				want: with(func(m map[string]string) { m[l+"holdfast-0000000003+1.efi"] = old })},
			{name: "put in a new folder", do: func(v *Volume) error {
				return v.Put("EFI/holdfast/holdfast-0000000001.efi", strings.NewReader(old), 1<<20)
			},
				want: with(func(m map[string]string) { m["EFI/holdfast/holdfast-0000000001.efi"] = old })},
			{name: "replace", do: func(v *Volume) error { return v.Put(l+"holdfast-0000000001.efi", strings.NewReader(big), 1<<20) },
				want: with(func(m map[string]string) { m[l+"holdfast-0000000001.efi"] = big })},
			{name: "bless", do: func(v *Volume) error { return v.Rename(l+"holdfast-0000000002+1.efi", l+"holdfast-0000000002.efi") },
				want: with(func(m map[string]string) {
					delete(m, l+"holdfast-0000000002+1.efi")
					m[l+"holdfast-0000000002.efi"] = big
				})},
			{name: "longer", do: func(v *Volume) error {
				return v.Rename(l+"holdfast-0000000002+1.efi", l+"holdfast-0000000002+0-1.efi")
			}, want: with(func(m map[string]string) {
				delete(m, l+"holdfast-0000000002+1.efi")
				m[l+"holdfast-0000000002+0-1.efi"] = big
			}), both: with(func(m map[string]string) { m[l+"holdfast-0000000002+0-1.efi"] = big })},
			{name: "remove", do: func(v *Volume) error { return v.Remove(l + "holdfast-0000000002+1.efi") },
				want: with(func(m map[string]string) { delete(m, l+"holdfast-0000000002+1.efi") })},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				seen := map[string]int{}
				for cut := 0; ; cut++ {
					done := false
					for try := range 2 {
						r := rand.New(rand.NewPCG(uint64(cut), uint64(try)))
						d := &tornDisk{b: slices.Clone(img), cut: cut}
						v, err := Edit(d, editSize)
						if err != nil {
							t.Fatal(err)
						}
						err = c.do(v)
						if done = err == nil; err != nil && !errors.Is(err, errTorn) {
							t.Fatal(err)
						}
						d.settle(func() bool { return r.IntN(2) == 0 })
						d.cut = -1
						v, err = Edit(d, editSize)
						if err != nil || !v.sound {
							t.Fatalf("cut %d: %v, sound %v", cut, err, v.sound)
						}
						got := contents(t, v, "EFI/Linux", "EFI/holdfast")
						switch {
						case maps.Equal(got, c.want):
							seen["new"]++
						case maps.Equal(got, before) && !done:
							seen["old"]++
						case c.both != nil && maps.Equal(got, c.both) && !done:
							seen["both"]++
						default:
							t.Fatalf("cut %d, done %v: %d files: %v", cut, done, len(got), slices.Collect(maps.Keys(got)))
						}
						// Whatever is there, the change can be made after it,
						// and nothing shares clusters then.
						if c.name != "remove" || got[l+"holdfast-0000000002+1.efi"] != "" {
							if err := c.do(v); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
								t.Fatalf("cut %d, again: %v", cut, err)
							}
						}
						if c.both != nil {
							if err := v.Remove(l + "holdfast-0000000002+1.efi"); err != nil {
								t.Fatal(err)
							}
						}
						if got := contents(t, v, "EFI/Linux", "EFI/holdfast"); !maps.Equal(got, c.want) {
							t.Fatalf("cut %d: after doing it again: %v", cut, slices.Collect(maps.Keys(got)))
						}
						if _, err := Read(memory(d.b), editSize); err != nil {
							t.Fatalf("cut %d: %v", cut, err)
						}
					}
					if done {
						break
					}
				}
				t.Logf("%v", seen)
			})
		}
	}
}

// FuzzEdit: whatever a volume says, an editor refuses or stays within it.
func FuzzEdit(f *testing.F) {
	img := editImage(f, []File{{Path: "EFI/Linux/holdfast-0000000001.efi", Data: []byte("kernel")}})
	f.Add(img[:sector], []byte{}, int64(0))
	f.Add(img[:sector], img[0x4000:0x4200], int64(0x4000))
	f.Fuzz(func(t *testing.T, boot, patch []byte, at int64) {
		b := slices.Clone(img[:1<<20])
		b = append(b, make([]byte, editSize-len(b))...)
		copy(b, boot)
		if at >= 0 && at < int64(len(b)) {
			copy(b[at:], patch)
		}
		v, err := Edit(&tornDisk{b: b, cut: -1}, editSize)
		if err != nil {
			return
		}
		for _, dir := range []string{"", "EFI/Linux"} {
			list, err := v.List(dir)
			if err != nil {
				continue
			}
			for _, e := range list {
				if r, n, err := v.Open(dir + "/" + e.Name); err == nil {
					_, _ = io.CopyN(io.Discard, io.NewSectionReader(r, 0, n), 1<<20)
				}
			}
		}
		_ = v.Put("EFI/Linux/x", strings.NewReader("x"), 10)
		_ = v.Rename("EFI/Linux/x", "EFI/Linux/a-longer-name-than-before")
		_ = v.Remove("EFI/Linux/a-longer-name-than-before")
	})
}
