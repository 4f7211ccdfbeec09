// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

func TestParseWindow(t *testing.T) {
	for in, want := range map[string]string{
		"Sun 02:00-04:00": "Sun 02:00-04:00", "sat,SUN 22:30-01:00": "Sun,Sat 22:30-01:00", "Mon-Wed 00:00-24:00": "Mon,Tue,Wed 00:00-24:00",
		"Fri-Mon 01:00-02:00": "Sun,Mon,Fri,Sat 01:00-02:00", "02:00-04:00": "daily 02:00-04:00", "daily 23:00-23:00": "daily 23:00-23:00",
	} {
		w, err := ParseWindow(in)
		if err != nil || w.String() != want {
			t.Errorf("%q: %q, %v, want %q", in, w, err, want)
		}
		var back Window
		if b, _ := w.MarshalText(); back.UnmarshalText(b) != nil || back != w {
			t.Errorf("%q does not read what it writes", in)
		}
	}
	for in, want := range map[string]string{
		"": "want days and times", "Sun": "want two times", "Son 02:00-04:00": `"Son" is not a day`, "Sun 2:00-4:00": `"2:00" is not a time`,
		"Sun 02:00-25:00": `"25:00" is not a time`, "Sun 24:00-02:00": `"24:00" is not a time`, "Sun 02:60-03:00": `"02:60"`, "Sun 02:00-02:05": "shorter than 10 minutes",
		"Sun 02:00 - 04:00": "want days and times", "Sun, 02:00-04:00": `"" is not a day`, strings.Repeat("x", 101): "too long", "Sun +2:00-04:00": `"+2:00"`,
	} {
		if _, err := ParseWindow(in); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "write it as") {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestWindowOpens(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		x, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, c := range []struct {
		window, at string
		open       bool
		next       string // where it is not
	}{
		{"Sun 02:00-04:00", "2026-11-22T01:00:00Z", true, ""},
		{"Sun 02:00-04:00", "2026-11-22T03:00:00Z", false, "2026-11-29T01:00:00Z"},
		{"Sun 02:00-04:00", "2026-11-22T00:59:59Z", false, "2026-11-22T01:00:00Z"},
		// Over midnight it belongs to the day that it begins on.
		{"Sat 23:00-01:00", "2026-11-21T23:30:00Z", true, ""},
		{"Sat 23:00-01:00", "2026-11-22T00:30:00Z", false, "2026-11-28T22:00:00Z"},
		{"daily 00:00-24:00", "2026-11-22T12:00:00Z", true, ""},
		// The clocks go forward on 2026-03-29 at 02:00: that hour is moved.
		{"Sun 02:00-03:00", "2026-03-29T00:30:00Z", false, "2026-03-29T01:00:00Z"},
		{"Sun 02:00-03:00", "2026-03-29T01:30:00Z", true, ""},
		{"Sun 02:00-03:00", "2026-03-29T02:00:00Z", false, "2026-04-05T00:00:00Z"},
		{"Sun 01:00-04:00", "2026-03-29T01:30:00Z", true, ""},
		// They go back on 2026-10-25 at 03:00: the hour comes twice, the
		// window is open for one of them at least.
		{"Sun 01:00-04:00", "2026-10-25T00:30:00Z", true, ""},
		{"Sun 01:00-04:00", "2026-10-25T01:30:00Z", true, ""},
		{"Sun 01:00-04:00", "2026-10-25T03:00:00Z", false, "2026-11-01T00:00:00Z"},
	} {
		w, err := ParseWindow(c.window)
		if err != nil {
			t.Fatal(err)
		}
		open, next := openAt([]Window{w}, at(c.at), zone)
		if open != c.open || !c.open && !next.Equal(at(c.next)) {
			t.Errorf("%s at %s: open %v, next %s, want %v, %s", c.window, c.at, open, next.UTC(), c.open, c.next)
		}
	}
	if open, _ := openAt(nil, at("2026-11-22T01:00:00Z"), nil); !open {
		t.Error("no window is always open")
	}
	if open, next := openAt([]Window{{}}, at("2026-11-22T01:00:00Z"), nil); open || !next.IsZero() {
		t.Error("a window without days never opens")
	}
}

func FuzzParseWindow(f *testing.F) {
	for _, s := range []string{"Sun 02:00-04:00", "Mon-Fri 22:00-02:00", "daily 00:00-24:00", "Sat,Sun 1-2"} {
		f.Add(s, int64(1e9))
	}
	f.Fuzz(func(t *testing.T, s string, sec int64) {
		w, err := ParseWindow(s)
		if err != nil {
			return
		}
		if again, err := ParseWindow(w.String()); err != nil || again != w {
			t.Fatalf("%q becomes %q: %v", s, w, err)
		}
		at := time.Unix(sec%(1<<33), 0).UTC()
		from, to := w.Next(at)
		if !to.After(from) || !to.After(at) || from.Sub(at) > 8*24*time.Hour {
			t.Fatalf("%s at %s: %s to %s", w, at, from, to)
		}
	})
}
