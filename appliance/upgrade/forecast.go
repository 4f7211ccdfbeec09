// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/version"
)

// mostOutlooks bounds how many releases are looked at in full.
const mostOutlooks = 10

// Outlook is whether one release would fit this box.
type Outlook struct {
	Target
	// Fits is true where nothing is against it; Refused says what is.
	Fits    bool      `json:"fits"`
	Refused []Refused `json:"refused,omitempty"`
	// Unknown says what could not be told beforehand, "" for nothing.
	Unknown string `json:"unknown,omitempty"`
}

// Forecast says for each newer release of the source, in all channels, whether
// it fits this box; the oldest first, the newest ones at most.
func (m *Machine) Forecast(ctx context.Context) ([]Outlook, error) {
	ch, list, look, err := m.look(ctx, Ask{})
	if err != nil {
		return nil, err
	}
	room, err := m.c.Box.Room(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(slices.Clone(list), func(t Target) bool {
		return t.Name != ch.Name || !version.Valid(t.Version) || version.Valid(ch.Version) && version.Compare(t.Version, ch.Version) <= 0
	})
	slices.SortFunc(list, func(a, b Target) int {
		return cmp.Or(version.Compare(a.Version, b.Version), cmp.Compare(a.Digest, b.Digest))
	})
	list = list[max(0, len(list)-mostOutlooks):]
	out := []Outlook{}
	for _, t := range list {
		o := forecast(t, ch, room)
		if cand, err := m.c.Box.Describe(ctx, look.Ref, t); err != nil {
			o.Unknown = "its description could not be read: " + err.Error()
		} else {
			o.Refused = merge(o.Refused, Preflight(cand, ch.Record, room))
			more, err := m.c.Box.CheckConfig(ctx, cand)
			if err != nil {
				o.Unknown = "its configuration could not be checked: " + err.Error()
			}
			o.Refused = merge(o.Refused, more)
		}
		o.Fits = len(o.Refused) == 0
		out = append(out, o)
	}
	return out, ctx.Err()
}

// forecast is what the trust metadata alone tell of a release. It is pure.
func forecast(t Target, ch Chooser, room Room) Outlook {
	o := Outlook{Target: t}
	if r := ch.Refuses(t); r != nil {
		o.Refused = append(o.Refused, *r)
	}
	var need release.Requirements
	if len(t.Requirements) > 0 {
		if err := json.Unmarshal(t.Requirements, &need); err != nil {
			o.Unknown = "its requirements can't be read"
		}
		o.Refused = merge(o.Refused, fits(t, need, room))
	}
	if len(room.Keys) > 0 && len(t.Keys) > 0 && !slices.ContainsFunc(t.Keys, func(k string) bool { return slices.Contains(room.Keys, k) }) {
		o.Refused = append(o.Refused, Refused{CodeKeys, fmt.Sprintf("the kernel image of %s is signed with key %s, which this machine's firmware does not know", t, cut(t.Keys[0], 80)),
			"enrol the vendor's new key in the firmware first"})
	}
	o.Fits = len(o.Refused) == 0
	return o
}

// merge adds refusals of codes that are not there yet.
func merge(list, more []Refused) []Refused {
	for _, r := range more {
		if !slices.ContainsFunc(list, func(o Refused) bool { return o.Code == r.Code && o.Why == r.Why }) {
			list = append(list, r)
		}
	}
	return list
}
