// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/holdfast/holdfast/appliance/status"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30

	ballastName = "ballast"
)

// ballastSize is what is kept back on a file system: a 64th of it, from 32 MiB
// to 256 MiB. Given back it lets the journal, an admin's log-in and what mends
// the box write for days: journald writes some MiB a day, a rolled-back
// generation a few KiB of records.
func ballastSize(total int64) int64 { return min(max(total/64, 32*mib), 256*mib) }

// lastMark is the free room at which ballast is given back: a hundredth, from
// 16 MiB to 512 MiB.
func lastMark(total int64) int64 { return min(max(total/100, 16*mib), 512*mib) }

type ballastAct int

const (
	leave ballastAct = iota
	release
	makeIt
)

// decideBallast is pure: have is the ballast's size on disk, 0 for none. It is
// given back at the last mark, and made again only where four times as much
// stays free afterwards, so that it does not come and go.
func decideBallast(s Space, have int64) ballastAct {
	want := ballastSize(s.Total)
	switch {
	case have > 0 && s.Free < lastMark(s.Total):
		return release
	case have < want && s.Free-want >= 4*lastMark(s.Total): // the old one goes once the new one is there
		return makeIt
	}
	return leave
}

// ballasts keeps the ballast of state and data as it should be.
func (e *Enforcer) ballasts() []status.Condition {
	var list []status.Condition
	for _, d := range []struct{ name, dir string }{{"data", e.c.Data}, {"state", e.c.State}} {
		if d.dir == "" {
			continue
		}
		s, err := e.space(d.dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the data is held; it is not there to be full
		}
		path := filepath.Join(d.dir, ballastName)
		var have int64
		if err == nil {
			have, err = e.c.Ballast.Size(path)
		}
		if err == nil {
			switch decideBallast(s, have) {
			case release:
				if err = e.c.Ballast.Remove(path); err == nil {
					have = 0
				}
			case makeIt:
				if err = e.c.Ballast.Make(path, ballastSize(s.Total)); err == nil {
					have = ballastSize(s.Total)
				}
			}
		}
		switch {
		case err != nil:
			list = append(list, failed("the ballast of "+d.name, err))
		case have == 0:
			list = append(list, status.Condition{
				Code: "ballast-released", Severity: "critical",
				Text:   fmt.Sprintf("%s is full: the last %s were given up so that the box can still be logged into", d.name, size(ballastSize(s.Total))),
				Remedy: "holdfast top shows who fills it; remove what is not needed, or enlarge the disk and reboot",
			})
		}
	}
	return list
}

// space is the room of one of our volumes. Data that is not mounted has none:
// its folder is state's then, and nothing may be put there.
func (e *Enforcer) space(dir string) (Space, error) {
	if dir == e.c.Data && !e.c.Mounted(dir) {
		return Space{}, fs.ErrNotExist
	}
	return e.c.Space(dir)
}

// size says bytes as people do.
func size(n int64) string {
	if n >= gib {
		return fmt.Sprintf("%.1f GiB", float64(n)/float64(gib))
	}
	return fmt.Sprintf("%d MiB", n/mib)
}
