// SPDX-License-Identifier: Apache-2.0

package chunk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	r.Read(b)
	return b
}

func cut(t testing.TB, b []byte) Index {
	t.Helper()
	x, err := Make(context.Background(), bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestPolynomial: what is not irreducible would cut the same bytes anew behind
// a change.
func TestPolynomial(t *testing.T) {
	if !polynomial.Irreducible() || polynomial.Deg() != 53 {
		t.Errorf("%x", polynomial)
	}
}

// TestFormat: boxes compare with what was cut years before, so neither the cut
// nor the encoding may ever change under this magic.
func TestFormat(t *testing.T) {
	x := cut(t, noise(1, 1<<20))
	const want = "744333965c0e8c63d1d80cf7bd09cfd4"
	if got := SumOf(x.Encode()); hexOf(got) != want {
		t.Errorf("the index of the same megabyte is %s, want %s", hexOf(got), want)
	}
}

func hexOf(s Sum) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, c := range s {
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

func TestMake(t *testing.T) {
	for _, n := range []int{0, 1, MinLen - 1, MinLen, MaxLen, MaxLen + 1, 3_000_000} {
		data := noise(2, n)
		x := cut(t, data)
		if x.Size != int64(n) {
			t.Errorf("%d bytes: size %d", n, x.Size)
		}
		at := 0
		for i, c := range x.Chunks {
			if c.Len > MaxLen || c.Len < MinLen && i < len(x.Chunks)-1 || c.Sum != SumOf(data[at:at+int(c.Len)]) {
				t.Errorf("%d bytes: chunk %d is %+v", n, i, c)
			}
			at += int(c.Len)
		}
		if at != n {
			t.Errorf("%d bytes: the chunks are %d", n, at)
		}
		// How the bytes come makes no difference.
		slow, err := Make(context.Background(), iotest.HalfReader(bytes.NewReader(data)))
		if err != nil || !reflect.DeepEqual(slow, x) {
			t.Errorf("%d bytes: another cut when read in halves, %v", n, err)
		}
		back, err := Decode(x.Encode(), int64(n))
		if err != nil || !reflect.DeepEqual(back.Chunks, append([]Chunk{}, x.Chunks...)) || back.Size != x.Size {
			t.Errorf("%d bytes: decoded %v", n, err)
		}
		if got := int64(len(x.Encode())); got > EncodedMax(int64(n)) {
			t.Errorf("%d bytes: an index of %d, EncodedMax says %d", n, got, EncodedMax(int64(n)))
		}
	}
	if x := cut(t, noise(3, 8<<20)); len(x.Chunks) < 8<<20/(28<<10) || len(x.Chunks) > 8<<20/(14<<10) {
		t.Errorf("8 MiB are %d chunks, far from 20 KiB each", len(x.Chunks))
	}
}

// TestShared: bytes put in, taken out or changed cost the chunks they are in.
func TestShared(t *testing.T) {
	old := noise(4, 4<<20)
	have := map[Sum]bool{}
	for _, c := range cut(t, old).Chunks {
		have[c.Sum] = true
	}
	for name, now := range map[string][]byte{
		"put in":    append(append(bytes.Clone(old[:1<<20]), "some bytes"...), old[1<<20:]...),
		"taken out": append(bytes.Clone(old[:2<<20]), old[2<<20+777:]...),
		"changed":   append(append(bytes.Clone(old[:3<<20]), noise(5, 100)...), old[3<<20+100:]...),
	} {
		fresh := 0
		for _, c := range cut(t, now).Chunks {
			if !have[c.Sum] {
				fresh++
			}
		}
		if fresh == 0 || fresh > 4 {
			t.Errorf("%s: %d chunks are new", name, fresh)
		}
	}
}

func TestMakeFails(t *testing.T) {
	broken := errors.New("broken")
	if _, err := Make(context.Background(), io.MultiReader(bytes.NewReader(noise(6, 200_000)), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(broken)
	if _, err := Make(ctx, bytes.NewReader(noise(6, 100))); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if err := Cut(context.Background(), bytes.NewReader(noise(6, 100)), func(Chunk, []byte) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := cut(t, noise(7, 300_000)).Encode()
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	size := func(b []byte, n uint64) []byte { binary.LittleEndian.PutUint64(b[8:], n); return b }
	for _, c := range []struct {
		name, want string
		data       []byte
	}{
		{"nothing", "not an index", nil},
		{"magic", "not an index", change(func(b []byte) []byte { b[7]++; return b })},
		{"cut in the head", "not an index", good[:15]},
		{"cut in an entry", "are not the entries", good[:len(good)-1]},
		{"an entry less", "its chunks are not", good[:len(good)-entryLen]},
		{"an entry more", "its chunks are not", change(func(b []byte) []byte { return append(b, good[headLen:headLen+entryLen]...) })},
		{"larger", "at most 300000", change(func(b []byte) []byte { return size(b, 300_001) })},
		{"negative", "at most 300000", change(func(b []byte) []byte { return size(b, 1<<63) })},
		{"smaller", "its chunks are not", change(func(b []byte) []byte { return size(b, 299_999) })},
		{"short chunk", "a cut makes", change(func(b []byte) []byte { binary.LittleEndian.PutUint16(b[headLen+16:], MinLen-2); return b })},
		{"other length", "its chunks are not", change(func(b []byte) []byte { b[headLen+16]++; return b })},
		{"more entries than chunks can be", "are not the entries", append(size(bytes.Clone(good[:headLen]), 5000), make([]byte, 3*entryLen)...)},
	} {
		if _, err := Decode(c.data, 300_000); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := Decode(good, -1); err == nil {
		t.Error("no file is smaller than none")
	}
}

// FuzzDecode: what is taken has one form and holds together.
func FuzzDecode(f *testing.F) {
	f.Add(cut(f, noise(8, 100_000)).Encode(), int64(100_000))
	f.Add(Index{}.Encode(), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, most int64) {
		x, err := Decode(b, most)
		if err != nil {
			return
		}
		if x.Size > most || !bytes.Equal(x.Encode(), b) {
			t.Fatalf("%d bytes of at most %d, encoded otherwise", x.Size, most)
		}
		sum := int64(0)
		for _, c := range x.Chunks {
			sum += int64(c.Len)
		}
		if sum != x.Size {
			t.Fatalf("chunks of %d bytes, size %d", sum, x.Size)
		}
	})
}

// FuzzCut: any bytes are cut into themselves.
func FuzzCut(f *testing.F) {
	f.Add([]byte("x"), 1)
	f.Add(make([]byte, 1000), 300)
	f.Fuzz(func(t *testing.T, b []byte, times int) {
		if times < 1 || times*len(b) > 1<<20 {
			return
		}
		b = bytes.Repeat(b, times)
		var got []byte
		if err := Cut(context.Background(), bytes.NewReader(b), func(c Chunk, data []byte) error {
			got = append(got, data...)
			return nil
		}); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%d bytes are %d after the cut, %v", len(b), len(got), err)
		}
	})
}

func BenchmarkMake(b *testing.B) {
	data := noise(9, 32<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		cut(b, data)
	}
}
