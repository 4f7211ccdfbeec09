// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Window is a time of the week in which a box may be restarted, e.g.
// "Sun 02:00-04:00". It is written in the box's time zone, by its clock on the
// wall; one that ends at or before its begin ends on the next day.
type Window struct {
	// Days that it begins on, Sunday first.
	Days [7]bool
	// From and To in minutes since midnight; To may be 1440.
	From, To int
}

var dayNames = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// leastWindow is the shortest window in minutes: a switch takes that long.
const leastWindow = 10

// ParseWindow reads "DAYS HH:MM-HH:MM", where DAYS is a day ("Sun"), a list
// ("Sat,Sun"), a range ("Mon-Fri"), "daily", or nothing for daily.
func ParseWindow(s string) (Window, error) {
	bad := func(what string) (Window, error) {
		return Window{}, fmt.Errorf("maintenance window %q: %s; write it as \"Sun 02:00-04:00\" or \"daily 02:00-04:00\"", cut(s, 60), what)
	}
	if len(s) > 100 {
		return bad("too long")
	}
	words := strings.Fields(s)
	var w Window
	switch len(words) {
	case 1:
		words = []string{"daily", words[0]}
	case 2:
	default:
		return bad("want days and times")
	}
	if strings.EqualFold(words[0], "daily") {
		w.Days = [7]bool{true, true, true, true, true, true, true}
	} else {
		for _, part := range strings.Split(words[0], ",") {
			first, last, isRange := strings.Cut(part, "-")
			a, b := dayOf(first), dayOf(last)
			if !isRange {
				b = a
			}
			if a < 0 || b < 0 {
				return bad(fmt.Sprintf("%q is not a day of the week", part))
			}
			for d := a; ; d = (d + 1) % 7 {
				w.Days[d] = true
				if d == b {
					break
				}
			}
		}
	}
	from, to, ok := strings.Cut(words[1], "-")
	if !ok {
		return bad("want two times with a - between")
	}
	if w.From, ok = clock(from); !ok || w.From == 1440 {
		return bad(fmt.Sprintf("%q is not a time", from))
	}
	if w.To, ok = clock(to); !ok {
		return bad(fmt.Sprintf("%q is not a time", to))
	}
	if w.length() < leastWindow {
		return bad(fmt.Sprintf("shorter than %d minutes", leastWindow))
	}
	return w, nil
}

func dayOf(s string) int {
	return slices.IndexFunc(dayNames, func(d string) bool { return strings.EqualFold(d, s) })
}

// clock reads HH:MM up to 24:00 as minutes.
func clock(s string) (int, bool) {
	if len(s) != 5 || s[2] != ':' || strings.ContainsAny(s, "+-_") {
		return 0, false
	}
	h, err1 := strconv.Atoi(s[:2])
	m, err2 := strconv.Atoi(s[3:])
	n := h*60 + m
	return n, err1 == nil && err2 == nil && m < 60 && n <= 1440
}

// length in minutes by the clock on the wall.
func (w Window) length() int {
	if w.To <= w.From {
		return w.To + 1440 - w.From
	}
	return w.To - w.From
}

func (w Window) String() string {
	var days []string
	for i, on := range w.Days {
		if on {
			days = append(days, dayNames[i])
		}
	}
	name := strings.Join(days, ",")
	if len(days) == 7 {
		name = "daily"
	}
	return fmt.Sprintf("%s %02d:%02d-%02d:%02d", name, w.From/60, w.From%60, w.To/60, w.To%60)
}

// MarshalText and UnmarshalText are its text form.
func (w Window) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText is ParseWindow.
func (w *Window) UnmarshalText(b []byte) (err error) {
	*w, err = ParseWindow(string(b))
	return err
}

// on is the window that begins on the day of t.
func (w Window) on(t time.Time) (from, to time.Time) {
	y, m, d := t.Date()
	from = time.Date(y, m, d, w.From/60, w.From%60, 0, 0, t.Location())
	if w.To <= w.From {
		d++
	}
	to = time.Date(y, m, d, w.To/60, w.To%60, 0, 0, t.Location())
	if !to.After(from) {
		// All of it lies in the hour that is left out when summer time begins:
		// it is moved, not lost.
		to = from.Add(time.Duration(w.length()) * time.Minute)
	}
	return from, to
}

// Next is the window that is open at t or else opens next, in t's time zone.
func (w Window) Next(t time.Time) (from, to time.Time) {
	noon := time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, t.Location())
	for day := -1; ; day++ {
		begin := noon.AddDate(0, 0, day)
		if !w.Days[begin.Weekday()] {
			if day > 8 {
				return time.Time{}, time.Time{} // no day at all: the zero Window
			}
			continue
		}
		if from, to = w.on(begin); to.After(t) {
			return from, to
		}
	}
}

// openAt says whether one of the windows is open, and when the next opens
// where none is. None at all is always open.
func openAt(list []Window, t time.Time, zone *time.Location) (open bool, next time.Time) {
	if len(list) == 0 {
		return true, time.Time{}
	}
	if zone == nil {
		zone = time.UTC
	}
	t = t.In(zone)
	for _, w := range list {
		from, _ := w.Next(t)
		switch {
		case from.IsZero():
		case !from.After(t):
			return true, time.Time{}
		case next.IsZero() || from.Before(next):
			next = from
		}
	}
	return false, next
}
