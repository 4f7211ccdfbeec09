// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/engine/fake"
)

// away is a Fetcher that notes what it is told.
type away struct {
	log []string
	// damaged is how often the copy goes bad before the engine has it.
	damaged int
	refuse  error
}

func (a *away) Need(d []string) error {
	a.log = append(a.log, "need "+strings.Join(d, " "))
	return nil
}

func (a *away) Fetch(_ context.Context, d string, report func(Fetching)) error {
	a.log = append(a.log, "fetch "+d)
	report(Fetching{Done: 1, Total: 2})
	return a.refuse
}

func (a *away) Loaded(d string) error {
	a.log = append(a.log, "loaded "+d)
	return nil
}

func (a *away) WriteImage(_ context.Context, w io.Writer, d string, _ func(done, total int64)) error {
	a.log = append(a.log, "write "+d)
	if a.damaged > 0 {
		a.damaged--
		return fmt.Errorf("%w: x", ErrCopyDamaged)
	}
	_, err := io.WriteString(w, "web@"+d)
	return err
}

// An image is fetched, loaded and let go of before the next; one that the
// engine has is not asked for.
func TestLoadFetchedImages(t *testing.T) {
	for _, row := range []struct {
		name string
		away away
		want []string
		err  string
	}{
		{"all well", away{}, []string{"need a b", "fetch a", "write a", "loaded a", "fetch b", "write b", "loaded b"}, ""},
		{"a copy goes bad", away{damaged: 1}, []string{"need a b", "fetch a", "write a", "fetch a", "write a", "loaded a", "fetch b", "write b", "loaded b"}, ""},
		{"a disk that damages all", away{damaged: 100}, []string{"need a b", "fetch a", "write a", "fetch a", "write a", "fetch a", "write a"}, "image a: the fetched copy is damaged"},
		{"refused", away{refuse: errors.New("no")}, []string{"need a b", "fetch a"}, "image a: no"},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := fake.New()
			e.AddImage("web@there")
			var reports []Progress
			a := row.away
			err := LoadImages(t.Context(), e, &a, []Image{{Ref: "a", Pinned: "web@a", Digest: "a"}, {Ref: "there", Pinned: "web@there", Digest: "there"},
				{Ref: "b", Pinned: "web@b", Digest: "b"}}, func(p Progress) { reports = append(reports, p) })
			if row.err == "" && err != nil || row.err != "" && (err == nil || !strings.HasPrefix(err.Error(), row.err)) {
				t.Errorf("%v, want %s", err, row.err)
			}
			if !slices.Equal(a.log, row.want) {
				t.Errorf("%q\nwant %q", a.log, row.want)
			}
			if len(reports) == 0 || reports[0].Fetching == nil || reports[0].Fetching.Done != 1 || reports[0].Image != "a" || reports[0].Count != 2 {
				t.Errorf("reports %+v", reports)
			}
		})
	}
	// Two names of one image are one fetch.
	e, a := fake.New(), &away{}
	if err := LoadImages(t.Context(), e, a, []Image{{Ref: "a", Pinned: "web@a", Digest: "a"}, {Ref: "a2", Pinned: "web@a", Digest: "a"}}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"need a a", "fetch a", "write a", "loaded a"}; !slices.Equal(a.log, want) {
		t.Errorf("%q, want %q", a.log, want)
	}
}
