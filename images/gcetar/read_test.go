// SPDX-License-Identifier: Apache-2.0

package gcetar

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/extents"
)

func pack(t testing.TB, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unpack(t testing.TB, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// fix makes the checksum of the first header right again.
func fix(tar []byte) []byte {
	copy(tar[offSum:], fmt.Sprintf("%06o\x00 ", sum(tar[:block])))
	return tar
}

func read(b []byte) error {
	i, err := Open(bytes.NewReader(b))
	if err != nil {
		return err
	}
	return i.Each(func(int64, []byte) error { return nil })
}

func TestOpenRefuses(t *testing.T) {
	s, size := scattered(t, 30)
	good := unpack(t, write(t, s, size, Unit, Options{}))
	archive := func(h tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return fix(b)
	}
	list := bytes.Clone(good[:3*block])
	for name, c := range map[string]struct {
		tar  []byte
		want string
	}{
		"empty":          {nil, "ends in its first header"},
		"zeros":          {make([]byte, 4096), "not a tar archive"},
		"pax":            {archive(tar.Header{Format: tar.FormatPAX, Name: Member, Size: Unit, PAXRecords: map[string]string{"comment": "x"}}), "not in the GNU format"},
		"ustar":          {archive(tar.Header{Format: tar.FormatUSTAR, Name: Member, Size: Unit}), "not in the GNU format"},
		"other name":     {archive(tar.Header{Format: tar.FormatGNU, Name: "x.raw", Size: Unit}), `"x.raw", it must be "disk.raw"`},
		"folder":         {archive(tar.Header{Format: tar.FormatGNU, Name: Member, Typeflag: tar.TypeSymlink, Linkname: "x"}), "no plain file"},
		"half a GiB":     {archive(tar.Header{Format: tar.FormatGNU, Name: Member, Size: Unit / 2}), "no whole number of GiB"},
		"nothing":        {archive(tar.Header{Format: tar.FormatGNU, Name: Member}), "no whole number of GiB"},
		"real size":      {change(func(b []byte) { number(b[offReal:endReal], Unit+512) }), "no whole number of GiB"},
		"stored size":    {change(func(b []byte) { number(b[offSize:offMTime], 512) }), "does not fit its size"},
		"bad octal":      {change(func(b []byte) { b[offReal] = '9' }), "no octal number"},
		"negative":       {change(func(b []byte) { b[offReal] = 0xff }), "out of range"},
		"checksum":       {append([]byte("disk.raW"), good[8:]...), "checksum"},
		"out of order":   {change(func(b []byte) { number(b[offSparse:offSparse+12], Unit-512) }), "out of order"},
		"no sector":      {change(func(b []byte) { number(b[offSparse:offSparse+12], 1) }), "no whole sectors"},
		"ends early":     {change(func(b []byte) { clear(b[offSparse+entry : offMore]) }), "goes on after its end"},
		"cut list":       {list[:block+100], "ends in the list of holes"},
		"cut data":       {good[:5*block], "unexpected EOF"},
		"cut end":        {good[:len(header(s.runs, Unit))+30*4096+block], "unexpected EOF"},
		"second member":  {append(bytes.Clone(good[:len(good)-record+block]), good...), "more than disk.raw"},
		"zeros no end":   {append(bytes.Clone(good), make([]byte, maxTail+block)...), "goes on for more"},
		"not in sectors": {append(bytes.Clone(good), 0), "unexpected EOF"},
	} {
		if err := read(pack(t, c.tar)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := read(pack(t, good)); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	if err := read([]byte("hello, disk")); err == nil || !strings.Contains(err.Error(), "not a gzip file") {
		t.Errorf("no gzip: %v", err)
	}
	packed := pack(t, good)
	packed[len(packed)-8] ^= 1
	if err := read(packed); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("gzip's checksum: %v", err)
	}
	if err := read(packed[:len(packed)-3]); err == nil {
		t.Error("a cut file is read")
	}
	stop := fmt.Errorf("stop")
	i, err := Open(bytes.NewReader(pack(t, good)))
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Each(func(int64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the caller: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	var runs []extents.Run
	for i := range int64(26) {
		runs = append(runs, extents.Run{Offset: i * minHole, Length: block})
	}
	f.Add(append(header(runs, Unit), make([]byte, 28*block)...)) // small seeds keep it fast
	f.Add(header([]extents.Run{{Offset: 512, Length: 512}}, MaxSize))
	f.Fuzz(func(t *testing.T, plain []byte) {
		if len(plain) >= block {
			plain = fix(bytes.Clone(plain)) // else the checksum hides the rest
		}
		i, err := open(bytes.NewReader(plain))
		if err != nil {
			return
		}
		if i.Size%Unit != 0 || len(i.Runs) > maxRuns || extents.Total(i.Runs) > i.Size {
			t.Errorf("accepted: %d bytes, %d runs", i.Size, len(i.Runs))
		}
		last := int64(0)
		if i.Each(func(off int64, b []byte) error {
			if off < last || len(b) == 0 || off+int64(len(b)) > i.Size {
				t.Errorf("%d bytes at %d after %d", len(b), off, last)
			}
			last = off + int64(len(b))
			return nil
		}) == nil && last > i.Size {
			t.Error("more data than disk")
		}
	})
}

func FuzzOpenGzip(f *testing.F) {
	s, size := scattered(f, 3)
	f.Add(write(f, s, size, Unit, Options{}))
	f.Fuzz(func(_ *testing.T, b []byte) { _ = read(b) }) // must only not fail
}
