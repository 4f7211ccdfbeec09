// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/compose/release"
)

func target(version string, edit func(*Target)) Target {
	t := Target{Name: "demo", Version: version, Digest: "sha256:" + version, Channels: []string{"stable"}, Rollout: 100}
	if edit != nil {
		edit(&t)
	}
	return t
}

func TestChoose(t *testing.T) {
	list := []Target{
		target("1.0.0", nil), target("1.1.0", nil), target("1.3.0", func(t *Target) { t.Channels = []string{"beta"} }),
		target("1.2.0", nil), target("2.0.0", func(t *Target) { t.MinFrom = "1.2.0" }), target("1.4.0", func(t *Target) { t.Rollout = 0 }),
		target("1.5.0", func(t *Target) { t.Epoch = 1 }), target("3.0.0", func(t *Target) { t.Name = "other" }), target("not a version", nil),
	}
	base := Chooser{Name: "demo", Version: "1.0.0", Digest: "sha256:1.0.0", Record: slot.Record{Epoch: 2}, MachineID: "m"}
	list[1].Epoch, list[2].Epoch, list[3].Epoch, list[4].Epoch, list[5].Epoch = 2, 2, 2, 2, 2
	for name, c := range map[string]struct {
		edit func(*Chooser)
		want string // version, "" for none, or a code
	}{
		"the newest that is allowed": {func(*Chooser) {}, "1.2.0"},
		"another channel":            {func(c *Chooser) { c.Channel = "beta" }, "1.3.0"},
		"no such channel":            {func(c *Chooser) { c.Channel = "nightly" }, ""},
		"named: no rollout":          {func(c *Chooser) { c.Explicit = true }, "1.4.0"},
		"after a stepping stone":     {func(c *Chooser) { c.Version, c.Digest = "1.2.0", "sha256:1.2.0" }, "2.0.0"},
		"quarantined":                {func(c *Chooser) { c.Record.Quarantined = []string{"sha256:1.2.0"} }, "1.1.0"},
		"nothing newer":              {func(c *Chooser) { c.Version, c.Digest = "2.0.0", "sha256:2.0.0" }, ""},
		"asked for":                  {func(c *Chooser) { c.Want = "1.1.0" }, "1.1.0"},
		"asked for, other channel":   {func(c *Chooser) { c.Want = "1.3.0" }, "1.3.0"},
		"asked for, not there":       {func(c *Chooser) { c.Want = "9.0.0" }, CodeNotFound},
		"asked for, runs":            {func(c *Chooser) { c.Want = "1.0.0" }, CodeCurrent},
		"asked for, too far":         {func(c *Chooser) { c.Want = "2.0.0" }, CodeMinFrom},
		"asked for, epoch":           {func(c *Chooser) { c.Want = "1.5.0" }, CodeEpoch},
		"asked for, older":           {func(c *Chooser) { c.Want, c.Version, c.Digest = "1.0.0", "1.1.0", "x" }, CodeOlder},
		"asked for, other content":   {func(c *Chooser) { c.Want, c.Digest = "1.0.0", "sha256:other" }, CodeOlder},
		"asked for, factory's":       {func(c *Chooser) { c.Want, c.Digest = "1.0.0", "" }, CodeCurrent},
		"asked for, quarantined":     {func(c *Chooser) { c.Want, c.Record.Quarantined = "1.2.0", []string{"sha256:1.2.0"} }, CodeQuarantined},
		"forced":                     {func(c *Chooser) { c.Want, c.Force, c.Record.Quarantined = "1.2.0", true, []string{"sha256:1.2.0"} }, "1.2.0"},
	} {
		ch := base
		c.edit(&ch)
		got, err := ch.Choose(list)
		var no *Refused
		switch {
		case errors.As(err, &no):
			if no.Code != c.want || no.Why == "" || no.Remedy == "" {
				t.Errorf("%s: %+v, want %s", name, no, c.want)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case got == nil && c.want != "" || got != nil && got.Version != c.want:
			t.Errorf("%s: %v, want %q", name, got, c.want)
		}
	}
	// A disk with one release on it: its channel is not asked.
	ch := base
	ch.Explicit = true
	if got, err := ch.Choose(list[2:3]); err != nil || got == nil {
		t.Errorf("the only one: %v, %v", got, err)
	}
}

func TestPercent(t *testing.T) {
	count := map[bool]int{}
	for i := range 10000 {
		id := fmt.Sprintf("%032x", i)
		p := Percent(id, "sha256:a")
		if p < 0 || p > 99 || p != Percent(id, "sha256:a") {
			t.Fatalf("%s: %d", id, p)
		}
		count[p < 10]++
	}
	if n := count[true]; n < 850 || n > 1150 {
		t.Errorf("%d of 10000 boxes are in the first 10 percent", n)
	}
	if Percent("m", "sha256:a") == Percent("m", "sha256:b") && Percent("n", "sha256:a") == Percent("n", "sha256:b") {
		t.Error("the order of boxes is the same for each release")
	}
}

func TestPreflight(t *testing.T) {
	room := Room{Memory: 4 << 30, CPUs: 2000, Data: 10 << 30, State: 4 << 30, Pool: 10 << 30, Snapshot: 8 << 30, Slot: 1 << 30, ESP: 100 << 20}
	rec := recordOf(nil)
	ok := Candidate{Target: target("1.1.0", nil), Description: release.Description{Name: "demo", Version: "1.1.0", OS: release.OS{RootHash: hashB},
		Parts: &release.Parts{UKI: release.PartBlob{Size: 30 << 20}}, Verity: &release.Verity{Bytes: 300 << 20},
		Requirements: release.Requirements{Memory: 3 << 30, CPUs: 2000, Data: 8 << 30, Images: 1 << 30}}}
	for code, edit := range map[string]func(*Candidate, *Room){
		"":            func(*Candidate, *Room) {},
		CodeMemory:    func(_ *Candidate, r *Room) { r.Memory = 2 << 30 },
		CodeCPUs:      func(_ *Candidate, r *Room) { r.CPUs = 1999 },
		CodeDataRoom:  func(_ *Candidate, r *Room) { r.Data = 7 << 30 },
		CodeStateRoom: func(_ *Candidate, r *Room) { r.State = 1 << 30 },
		CodePoolRoom:  func(_ *Candidate, r *Room) { r.Pool = 7 << 30 },
		CodeSlotRoom:  func(_ *Candidate, r *Room) { r.Slot = 299 << 20 },
		CodeESPRoom:   func(_ *Candidate, r *Room) { r.ESP = 30 << 20 },
		CodeParts:     func(c *Candidate, _ *Room) { c.Description.Parts = nil },
		CodeTrust:     func(c *Candidate, _ *Room) { c.Description.Version = "1.0.9" },
		"stack":       func(c *Candidate, r *Room) { c.Description.OS.RootHash, r.Slot, r.ESP = hashA, 0, 0 },
		"kept's room": func(_ *Candidate, r *Room) { r.State, r.KeptState = 1<<30, 1<<30 },
		"kept's data": func(_ *Candidate, r *Room) { r.Pool, r.KeptPool = 7<<30, 1<<30 },
	} {
		c, r := ok, room
		edit(&c, &r)
		got := Preflight(c, rec, r)
		fine := code == "" || strings.Contains(code, " ") || strings.Contains(code, "'") || code == "stack"
		if fine != (len(got) == 0) || !fine && (len(got) != 1 || got[0].Code != code || got[0].Remedy == "") {
			t.Errorf("%q: %+v", code, got)
		}
	}
	kept := recordOf(nil)
	kept.Kept = &slot.Generation{Number: 1, Slot: "B", RootHash: hashB, Data: "data-1"}
	if why := givesUp(ok, kept, room); why != "its slot is needed" {
		t.Errorf("gives up: %q", why)
	}
	only := ok
	only.Description.OS.RootHash = hashA
	if why := givesUp(only, kept, room); why != "" {
		t.Errorf("gives up: %q", why)
	}
	room.Pool = 1 << 30
	if why := givesUp(only, kept, room); !strings.Contains(why, "data") {
		t.Errorf("gives up: %q", why)
	}
}

func TestForecast(t *testing.T) {
	need, err := json.Marshal(release.Requirements{Memory: 8 << 30, CPUs: 1000})
	if err != nil {
		t.Fatal(err)
	}
	ch := Chooser{Name: "demo", Version: "1.0.0"}
	room := Room{Memory: 4 << 30, CPUs: 2000, Keys: []string{"k1"}}
	o := forecast(target("2.0.0", func(t *Target) { t.Requirements, t.Keys, t.MinFrom = need, []string{"k2"}, "1.5.0" }), ch, room)
	var codes []string
	for _, r := range o.Refused {
		codes = append(codes, r.Code)
	}
	if got := strings.Join(codes, " "); o.Fits || got != "min-from memory firmware-key" {
		t.Errorf("%+v", o)
	}
	if o := forecast(target("1.1.0", func(t *Target) { t.Keys = []string{"k0", "k1"} }), ch, room); !o.Fits || len(o.Refused) > 0 {
		t.Errorf("%+v", o)
	}
	if o := forecast(target("1.1.0", func(t *Target) { t.Requirements = json.RawMessage(`[]`) }), ch, room); o.Unknown == "" {
		t.Errorf("%+v", o)
	}
}

func TestDueCheck(t *testing.T) {
	booted := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	first := dueCheck(known{}, Settings{}, "m", booted)
	if d := first.Sub(booted); d < 0 || d >= 10*time.Minute {
		t.Errorf("the first check is %s after the boot", d)
	}
	k := known{Asked: booted}
	at := map[time.Time]bool{}
	for i := range 50 {
		due := dueCheck(k, Settings{}, fmt.Sprint(i), booted)
		if d := due.Sub(booted); d < defaultCheck*3/4 || d >= defaultCheck {
			t.Errorf("box %d asks again after %s", i, d)
		}
		at[due] = true
	}
	if len(at) < 50 {
		t.Errorf("50 boxes ask at %d moments", len(at))
	}
	if d := dueCheck(k, Settings{CheckEvery: time.Second}, "m", booted).Sub(booted); d < leastCheck*3/4 {
		t.Errorf("it asks every %s", d)
	}
}
