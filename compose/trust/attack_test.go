// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// online is a repository at its second release, the state before, and a box
// that has seen both.
func online(t *testing.T) (r *Repository, before, now place, s *Store) {
	t.Helper()
	r = vendor(t)
	offer(t, r, target("1.0.0", 1))
	before = published(t, r)
	offer(t, r, target("1.1.0", 2))
	now = published(t, r)
	s = box(t, r)
	good(t, s, now, Options{}, "demo-1.0.0 demo-1.1.0")
	return r, before, now, s
}

func TestAnothersRepository(t *testing.T) {
	_, _, now, s := online(t)
	_, _, other, _ := online(t)
	refused(t, s, other, Options{}, ErrUnknownKey)
	refused(t, s, placeOf([]File{{BundleTargets, other["3.targets.json"]}}), Options{Offline: true}, ErrUnknownKey)
	for _, name := range []string{"3.snapshot.json", "3.targets.json"} {
		fresh := box(t, mustOpen(t, s, now))
		refused(t, fresh, now.with(name, other[name]), Options{}, ErrMixed)
	}
	refused(t, s, now.with("2.root.json", other["1.root.json"]), Options{}, ErrRollback)
	good(t, s, now, Options{}, "demo-1.0.0 demo-1.1.0")
}

// mustOpen gives box a repository that has the store's sealed root.
func mustOpen(t *testing.T, s *Store, _ place) *Repository {
	t.Helper()
	r := &Repository{dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(r.dir, RootFile), s.sealed, 0o644); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReplay(t *testing.T) {
	_, before, now, s := online(t)
	refused(t, s, before, Options{}, ErrRollback)
	refused(t, s, now.with("timestamp.json", before["timestamp.json"]), Options{}, ErrRollback)
	refused(t, s, placeOf([]File{{BundleTargets, before["2.targets.json"]}}), Options{Offline: true}, ErrRollback)
	// Under the names of the new ones: not what timestamp and snapshot name.
	fresh := func() *Store { return box(t, mustOpen(t, s, now)) }
	refused(t, fresh(), now.with("3.snapshot.json", before["2.snapshot.json"]), Options{}, ErrMixed)
	refused(t, fresh(), now.with("3.targets.json", before["2.targets.json"]), Options{}, ErrMixed)
	// A box that is new takes the old state: nothing tells it of a newer one
	// until that one's time is over.
	good(t, fresh(), before, Options{}, "demo-1.0.0")
	refused(t, fresh(), before, Options{Now: start.AddDate(0, 0, 15)}, ErrExpired)
}

func TestMissingParts(t *testing.T) {
	_, _, now, s := online(t)
	for _, name := range []string{"timestamp.json", "3.snapshot.json", "3.targets.json"} {
		refused(t, box(t, mustOpen(t, s, now)), now.without(name), Options{}, ErrMissing)
	}
	refused(t, s, place{}, Options{Offline: true}, ErrMissing)
}

func TestExpiry(t *testing.T) {
	r, _, now, s := online(t)
	late := map[string]time.Time{
		"timestamp": start.AddDate(0, 0, 15), "snapshot": start.AddDate(0, 0, 31),
		"targets": start.AddDate(0, 0, 401), "root": start.AddDate(0, 0, 1096),
	}
	for name, at := range late {
		refused(t, s, now, Options{Now: at}, ErrExpired)
		refused(t, s, now, Options{Least: at}, ErrExpired)
		var logged []string
		o := Options{Now: at, AcceptExpired: true, Log: func(l string) { logged = append(logged, l) }}
		good(t, s, now, o, "demo-1.0.0 demo-1.1.0")
		if len(logged) == 0 || !strings.Contains(strings.Join(logged, " "), name) {
			t.Errorf("%s: --accept-expired says %q", name, logged)
		}
	}
	b := bundled(t, r)
	good(t, s, b, Options{Offline: true, Now: start.AddDate(0, 0, 399)}, "demo-1.0.0 demo-1.1.0")
	refused(t, s, b, Options{Offline: true, Now: start.AddDate(0, 0, 401)}, ErrExpired)
	// To the second.
	good(t, s, now, Options{Now: start.Add(14 * day)}, "demo-1.0.0 demo-1.1.0")
	refused(t, s, now, Options{Now: start.Add(14*day + time.Second)}, ErrExpired)
}

// --accept-expired waives age and nothing else.
func TestAcceptExpiredWaivesAgeOnly(t *testing.T) {
	_, before, now, s := online(t)
	_, _, other, _ := online(t)
	o := Options{Now: start.AddDate(5, 0, 0), AcceptExpired: true}
	refused(t, s, before, o, ErrRollback)
	refused(t, s, other, o, ErrUnknownKey)
	bad := []byte(strings.Replace(string(now["timestamp.json"]), `"version":3`, `"version":4`, 1))
	refused(t, s, now.with("timestamp.json", bad), o, ErrSignature)
	o.Offline = true
	refused(t, s, placeOf([]File{{BundleTargets, before["2.targets.json"]}}), o, ErrRollback)
}

// A box whose clock stands still in the past goes by what was signed last.
func TestClockGoesByLastSignature(t *testing.T) {
	r, _, now, s := online(t)
	r.Now = start.AddDate(0, 2, 0)
	settle(t, r, RoleSnapshot, RoleTimestamp)
	clock := Options{Now: time.Unix(1, 0)}
	good(t, s, published(t, r), clock, "demo-1.0.0 demo-1.1.0")
	r.Now = start.AddDate(0, 5, 0)
	offer(t, r, target("1.2.0", 3))
	good(t, s, published(t, r), clock, "demo-1.0.0 demo-1.1.0 demo-1.2.0")
	// Its memory is of five months later than these.
	fresh := box(t, r)
	refused(t, fresh, now, Options{Now: time.Unix(1, 0), Least: r.Now}, ErrExpired)
}

// flips is how many bits there are to one that TestFlippedBits flips: no
// multiple of eight, so that each place in a byte has its turn; with
// HOLDFAST_SOAK it flips all of them, which takes minutes.
func flips() int {
	if os.Getenv("HOLDFAST_SOAK") != "" {
		return 1
	}
	return 37
}

// Any flipped bit of any file is refused, and nothing of it stored.
func TestFlippedBits(t *testing.T) {
	r := vendor(t)
	old := box(t, r)
	rotate(t, r, Rotation{Add: map[string]RoleKeys{RoleTimestamp: {New: 1}}})
	offer(t, r, target("1.0.0", 1))
	now, bundle, s := published(t, r), bundled(t, r), box(t, r)
	flip := func(s *Store, files place, name string, o Options) {
		data := files[name]
		for bit := 0; bit < len(data)*8; bit += flips() {
			bad := append([]byte(nil), data...)
			bad[bit/8] ^= 1 << (bit % 8)
			if _, err := paths(s, files.with(name, bad), o); err == nil {
				t.Fatalf("%s with bit %d flipped is taken", name, bit)
			} else if e := new(Error); !errors.As(err, &e) {
				t.Fatalf("%s with bit %d flipped: %v is no refusal", name, bit, err)
			}
		}
	}
	flip(old, now, "2.root.json", Options{})
	for name := range now {
		if !strings.HasSuffix(name, ".root.json") { // the box has its own
			flip(s, now, name, Options{})
		}
	}
	flip(s, bundle, BundleTargets, Options{Offline: true})
	if len(folder(t, s.dir))+len(folder(t, old.dir)) != 0 {
		t.Error("refused metadata was stored")
	}
	good(t, s, now, Options{}, "demo-1.0.0")
	good(t, old, now, Options{}, "demo-1.0.0")
}

// Lying servers end at a bound.
func TestHuge(t *testing.T) {
	_, _, now, s := online(t)
	refused(t, s, now.with("timestamp.json", make([]byte, MaxTimestamp+10)), Options{}, ErrTooLarge)
	refused(t, s, now.with("2.root.json", make([]byte, MaxRoot+10)), Options{}, ErrTooLarge)
	refused(t, s, placeOf([]File{{BundleTargets, make([]byte, MaxMetadata+10)}}), Options{Offline: true}, ErrTooLarge)
	deep := []byte(strings.Repeat("[", 60_000))
	refused(t, s, now.with("timestamp.json", deep), Options{}, ErrDamaged)
	many := []byte("[" + strings.Repeat("0,", 1_000_000) + "0]")
	refused(t, s, placeOf([]File{{BundleTargets, many}}), Options{Offline: true}, ErrDamaged)
	null := []byte(`{"signatures":[],"signed":{"_type":"targets","targets":{"a":null}}}`)
	refused(t, s, placeOf([]File{{BundleTargets, null}}), Options{Offline: true}, ErrDamaged)
}

// endless has a next root for ever.
type endless struct {
	r *Repository
	place
}

func (e *endless) Metadata(ctx context.Context, name string, limit int64) ([]byte, error) {
	if !strings.HasSuffix(name, ".root.json") {
		return e.place.Metadata(ctx, name, limit)
	}
	last := e.r.root().Signed.Version
	if name == rootName(last+1) {
		if err := e.r.Rotate(ctx, Rotation{}); err != nil {
			return nil, err
		}
	}
	return e.r.data[name], nil
}

func TestEndlessRoots(t *testing.T) {
	r := vendor(t)
	r.Write = func(string, []byte) error { return nil } // this many on no disk
	s := box(t, r)
	refused(t, s, &endless{r: r}, Options{}, ErrTooLarge)
}

// What the vendor's own keys sign by mistake, or a thief with them.
func TestSignedNonsense(t *testing.T) {
	r, _, now, s := online(t)
	sign := func(m *tuf.Metadata[tuf.TargetsType]) place {
		m.Signatures = nil
		if err := signWith(t.Context(), r, r.root(), RoleTargets, m); err != nil {
			t.Fatal(err)
		}
		data, err := m.ToBytes(false)
		if err != nil {
			t.Fatal(err)
		}
		return placeOf([]File{{BundleTargets, data}})
	}
	change := func(what func(*tuf.Metadata[tuf.TargetsType])) place {
		m, err := tuf.Targets().FromBytes(now["3.targets.json"])
		if err != nil {
			t.Fatal(err)
		}
		what(m)
		return sign(m)
	}
	off := Options{Offline: true}
	// The same version with other content.
	refused(t, s, change(func(m *tuf.Metadata[tuf.TargetsType]) { m.Signed.Targets = map[string]*tuf.TargetFiles{} }), off, ErrMixed)
	custom := func(text string) func(m *tuf.Metadata[tuf.TargetsType]) {
		return func(m *tuf.Metadata[tuf.TargetsType]) {
			m.Signed.Version++
			raw := json.RawMessage(text)
			m.Signed.Targets["demo-1.0.0"].Custom = &raw
		}
	}
	for _, text := range []string{
		`{}`, `[]`, `{"format":1}`,
		`{"channels":["stable"],"digest":"` + digest(1) + `","format":1,"name":"demo","version":"9.9.9"}`,
		`{"channels":["stable"],"digest":"` + digest(9) + `","format":1,"name":"demo","version":"1.0.0"}`,
		`{"channels":["stable"],"digest":"` + digest(1) + `","format":1,"name":"../demo","version":"1.0.0"}`,
		`{"channels":["stable"],"digest":"` + digest(1) + `","format":1,"name":"demo","rollout":101,"version":"1.0.0"}`,
		`{"channels":[],"digest":"` + digest(1) + `","format":1,"name":"demo","version":"1.0.0"}`,
		`{"channels":["b","a"],"digest":"` + digest(1) + `","format":1,"name":"demo","version":"1.0.0"}`,
	} {
		refused(t, s, change(custom(text)), off, ErrDamaged)
	}
	// A release of a later kind is passed over.
	good(t, box(t, mustOpen(t, s, now)), change(custom(`{"format":2}`)), off, "demo-1.1.0")
	refused(t, s, change(func(m *tuf.Metadata[tuf.TargetsType]) { m.Signed.Version = 0 }), off, ErrDamaged)
	refused(t, s, change(func(m *tuf.Metadata[tuf.TargetsType]) { m.Signed.Version = 1 << 40 }), off, ErrDamaged)
}

// A role's metadata under another role's name.
func TestRolesAreNotMixedUp(t *testing.T) {
	_, _, now, s := online(t)
	refused(t, s, now.with("timestamp.json", now["3.snapshot.json"]), Options{}, ErrDamaged)
	refused(t, s, now.with("2.root.json", now["3.targets.json"]), Options{}, ErrDamaged)
	refused(t, s, placeOf([]File{{BundleTargets, now["timestamp.json"]}}), Options{Offline: true}, ErrDamaged)
}

// Spaces and other spellings of the same content are refused.
func TestOneForm(t *testing.T) {
	_, _, now, s := online(t)
	text := string(now["timestamp.json"])
	var pretty any
	if err := json.Unmarshal([]byte(text), &pretty); err != nil {
		t.Fatal(err)
	}
	indented, _ := json.MarshalIndent(pretty, "", " ")
	for i, bad := range []string{
		string(indented), text + "\n", " " + text, text + text,
		strings.Replace(text, `"signed":{`, `"more":1,"signed":{`, 1),
		strings.Replace(text, `"version":3}`, `"version":3.0}`, 1),
		strings.Replace(text, `{"signatures"`, `{"signatures":[],"signatures"`, 1),
		strings.ToUpper(text), "", "{}", "null", "[]", `{"signatures":{},"signed":{}}`,
	} {
		if bad == text {
			t.Fatalf("case %d changes nothing", i)
		}
		refused(t, s, now.with("timestamp.json", []byte(bad)), Options{}, ErrDamaged)
	}
}

// The source's own errors stay what they are.
func TestSourceError(t *testing.T) {
	_, _, _, s := online(t)
	broke := errors.New("cable cut")
	_, err := paths(s, failing{broke}, Options{})
	if !errors.Is(err, broke) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Metadata(context.Context, string, int64) ([]byte, error) {
	return nil, fmt.Errorf("read: %w", f.err)
}
