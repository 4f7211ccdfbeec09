// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/compose/depot"
	"github.com/holdfast/holdfast/images/chunk"
)

// memory is a depot of one blob.
type memory struct{ data []byte }

func (m memory) Metadata(context.Context, string, int64) ([]byte, error) { return nil, os.ErrNotExist }
func (m memory) Blob(_ context.Context, _ string, offset, length int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(bytes.NewReader(m.data), offset, length)), nil
}
func (m memory) Offline() bool  { return false }
func (m memory) String() string { return "memory" }
func (m memory) Close() error   { return nil }

var _ depot.Depot = memory{}

// TestRebuildAnything: whatever the target held and the donors hold, in whatever
// order, the target is what was asked for, and no chunk that was at hand is
// fetched but for the gaps within a request.
func TestRebuildAnything(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	stock := make([][]byte, 12)
	for i := range stock {
		stock[i] = noise(byte(i), 1+rnd.IntN(80_000))
		if i%4 == 3 {
			stock[i] = make([]byte, 1+rnd.IntN(150_000)) // zeros: many equal chunks
		}
	}
	mix := func() (out []byte) {
		for range 1 + rnd.IntN(8) {
			out = append(out, stock[rnd.IntN(len(stock))]...)
		}
		return out
	}
	cut := func(b []byte) chunk.Index {
		x, err := chunk.Make(t.Context(), bytes.NewReader(b))
		ok(t, err)
		return x
	}
	for i := range 60 {
		want, old, other := mix(), mix(), mix()
		r := &run{depot: memory{want}}
		r.meter = meter{parts: map[string]Part{}}
		f, err := os.Create(filepath.Join(t.TempDir(), "x"))
		ok(t, err)
		_, err = f.Write(old)
		ok(t, err)
		tg := target{file: f}
		if i%5 != 0 {
			tg.old = newDonor(f, cut(old))
		}
		liar := bytes.Clone(other)
		if i%3 == 0 {
			liar[rnd.IntN(len(liar))] ^= 1
		}
		x := cut(want)
		donors := []*donor{newDonor(bytes.NewReader(liar), cut(other))}
		ok(t, r.rebuild(t.Context(), "it", fmt.Sprintf("sha256:%x", sha256.Sum256(want)), x, tg, donors))
		got := make([]byte, len(want))
		_, err = f.ReadAt(got, 0)
		ok(t, err)
		ok(t, f.Close())
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d, number %d: %d bytes are wrong", seed, i, len(want))
		}
		if r.meter.p.Done != int64(len(want)) || r.meter.p.Fetched+r.meter.p.Reused < int64(len(want)) {
			t.Fatalf("seed %d, number %d: %+v of %d", seed, i, r.meter.p, len(want))
		}
		var missed int64
		for j, p := range plan(x, tg.old, donors) {
			if p.from == fromDepot {
				missed += int64(x.Chunks[j].Len)
			}
		}
		if most := missed + missed/gapShare + missed/chunk.MinLen*smallGap + chunk.MaxLen; r.meter.p.Fetched > most {
			t.Errorf("seed %d, number %d: fetched %d, missing were %d", seed, i, r.meter.p.Fetched, missed)
		}
	}
}

// A chunk index that is not the blob's, and one that a vendor may sign by
// mistake, end in a refusal.
func TestRebuildRefuses(t *testing.T) {
	want := noise(1, 300_000)
	x, err := chunk.Make(t.Context(), bytes.NewReader(want))
	ok(t, err)
	x.Chunks[len(x.Chunks)/2].Sum[3] ^= 1
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	ok(t, err)
	defer f.Close()
	r := &run{depot: memory{want}}
	r.meter = meter{parts: map[string]Part{}}
	if err := r.rebuild(t.Context(), "it", "sha256:x", x, target{file: f}, nil); err == nil || FailureOf(err).Code != CodeRefused {
		t.Errorf("%v", err)
	}
	short := &run{depot: memory{want[:200_000]}}
	short.meter = meter{parts: map[string]Part{}}
	x, err = chunk.Make(t.Context(), bytes.NewReader(want))
	ok(t, err)
	if err := short.rebuild(t.Context(), "it", "sha256:x", x, target{file: f}, nil); err == nil || FailureOf(err).Code != CodeSource {
		t.Errorf("%v", err)
	}
}

func FuzzSquashfsSize(f *testing.F) {
	f.Add(squashfs(noise(1, 5000)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := squashfsSize(bytes.NewReader(b), int64(len(b))); n < 0 || n > int64(len(b)) {
			t.Errorf("%d of %d bytes", n, len(b))
		}
	})
}
