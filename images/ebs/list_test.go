// SPDX-License-Identifier: Apache-2.0

package ebs

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func written(t testing.TB, l *List) []byte {
	t.Helper()
	var b bytes.Buffer
	if n, err := l.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("wrote %d of %d, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

func someList(t testing.TB) *List {
	t.Helper()
	l, err := NewList(3, []Entry{{7, Sum{7}}, {0, Sum{1}}, {6143, Sum{2}}, {9, ZeroSum}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestListAgain(t *testing.T) {
	l := someList(t)
	if l.Len() != 3 || l.Sum(7) != (Sum{7}) || l.Sum(8) != ZeroSum || l.Sum(9) != ZeroSum {
		t.Errorf("list is %v", l.Entries())
	}
	got, err := ReadList(bytes.NewReader(written(t, l)))
	if err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("read %v, %v, want %v", got, err, l)
	}
	var none *List
	if none.Len() != 0 || none.Sum(3) != ZeroSum || none.Entries() != nil {
		t.Error("the nil list is not empty")
	}
}

func TestListApply(t *testing.T) {
	l, err := someList(t).Apply(4, []Entry{{7, ZeroSum}, {8, Sum{8}}, {0, Sum{9}}})
	if err != nil || !reflect.DeepEqual(l.Entries(), []Entry{{0, Sum{9}}, {8, Sum{8}}, {6143, Sum{2}}}) || l.GiB != 4 {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestListRefuses(t *testing.T) {
	for _, e := range [][]Entry{{{-1, Sum{1}}}, {{2048, Sum{1}}}, {{5, Sum{1}}, {5, Sum{2}}}} {
		if _, err := NewList(1, e); err == nil {
			t.Errorf("%v was taken", e)
		}
	}
	for _, gib := range []int64{0, -1, MaxGiB + 1} {
		if _, err := NewList(gib, nil); err == nil {
			t.Errorf("%d GiB were taken", gib)
		}
	}
	good := written(t, someList(t))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		if _, err := ReadList(bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d was changed and nobody noticed", i)
		}
		if _, err := ReadList(bytes.NewReader(good[:i])); err == nil {
			t.Fatalf("cut at %d and nobody noticed", i)
		}
	}
	if _, err := ReadList(bytes.NewReader(append(good, 0))); err == nil {
		t.Error("a byte after the end was taken")
	}
	if _, err := ReadList(strings.NewReader("HFEBSL01\xff\xff\xff\xff\xff\xff\xff\xff")); err == nil {
		t.Error("a list of 2^32 blocks was taken")
	}
}

// The checksum of no block is that of no bytes: a snapshot equal to its parent.
func TestChecksumOfNothing(t *testing.T) {
	if n, s := Checksum(nil); n != 0 || s != "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" {
		t.Errorf("%d, %s", n, s)
	}
}

func FuzzReadList(f *testing.F) {
	f.Add(written(f, someList(f)))
	f.Add([]byte(listMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ReadList(bytes.NewReader(b))
		if err == nil && !bytes.Equal(written(t, l), b) {
			t.Error("a list was read that writes other bytes")
		}
	})
}
