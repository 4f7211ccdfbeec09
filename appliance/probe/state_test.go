// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/compose/stack"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// TestCounting walks through a run as a Compose health check would count it.
func TestCounting(t *testing.T) {
	type look struct {
		at     float64 // seconds after the start
		failed bool
		want   string
		n      int
	}
	for name, c := range map[string]struct {
		p     stack.Probe
		looks []look
	}{
		"good at once": {stack.Probe{Kind: "tcp"}, []look{{0.1, false, Healthy, 0}}},
		"never good": {stack.Probe{Kind: "tcp", Interval: 10 * time.Second, Retries: 2}, []look{
			{0.1, true, Starting, 0}, {5, true, Starting, 0}, {10, true, Starting, 1}, {15, true, Starting, 1}, {20, true, Unhealthy, 2}, {30, false, Healthy, 0}}},
		"the start period forgives": {stack.Probe{Kind: "tcp", Interval: 10 * time.Second, StartPeriod: 30 * time.Second, Retries: 1}, []look{
			{10, true, Starting, 0}, {20, true, Starting, 0}, {29, true, Starting, 0}, {30, true, Unhealthy, 1}}},
		"until the first success": {stack.Probe{Kind: "tcp", Interval: 10 * time.Second, StartPeriod: time.Hour, Retries: 2}, []look{
			{10, true, Starting, 0}, {20, false, Healthy, 0}, {30, true, Healthy, 1}, {40, true, Unhealthy, 2}}},
		"a success forgets": {stack.Probe{Kind: "tcp", Interval: 10 * time.Second, Retries: 3}, []look{
			{1, false, Healthy, 0}, {11, true, Healthy, 1}, {21, true, Healthy, 2}, {31, false, Healthy, 0}, {41, true, Healthy, 1}}},
		"adopted while it fails": {stack.Probe{Kind: "tcp", Interval: 10 * time.Second, Retries: 2}, []look{
			{5000, true, Starting, 1}, {5001, true, Starting, 1}, {5010, true, Unhealthy, 2}}},
		"the clock was set back": {stack.Probe{Kind: "tcp", Interval: 10 * time.Second, Retries: 1}, []look{
			{-5000, true, Starting, 0}, {-4000, false, Healthy, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newState(c.p)
			for _, l := range c.looks {
				o := outcome{began: at(l.at)}
				if l.failed {
					o.failed = "no"
				}
				s = s.after(epoch, at(l.at), o)
				if s.Health != l.want || s.Failures != l.n || (s.Output != "") != l.failed {
					t.Fatalf("at %v s: %s, %d failures, %q; want %s, %d", l.at, s.Health, s.Failures, s.Output, l.want, l.n)
				}
			}
		})
	}
}

func TestUnknownCountsNothing(t *testing.T) {
	s := newState(stack.Probe{Kind: "exec", Retries: 1}).after(epoch, at(1), outcome{})
	if n := s.after(epoch, at(100), outcome{unknown: true, began: at(100)}); n.Health != Healthy || !n.At.Equal(at(1)) {
		t.Errorf("%+v", n)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		" a\nlast line \n":                "last line",
		"\x1b[31mred\x07":                 "[31mred",
		"bad \xff\xfe end":                "bad ? end",
		"one\u2028two\u200b":              "one two",
		strings.Repeat("é", maxOutput*10): strings.Repeat("é", maxOutput),
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	for want, p := range map[string]stack.Probe{
		"http :80/x":    {Kind: "http", Port: 80, Path: "/x"},
		"https :443/":   {Kind: "http", Scheme: "https", Port: 443, Path: "/"},
		"tcp :5432":     {Kind: "tcp", Port: 5432},
		"exec /bin/c":   {Kind: "exec", Command: []string{"/bin/c", "secret"}},
		"uptime 10s":    {Kind: "uptime", For: 10 * time.Second},
		"exec":          {Kind: "exec"},
		"exec [2Jboo":   {Kind: "exec", Command: []string{"\x1b[2Jboo"}},
		"something new": {Kind: "something new"},
	} {
		if got := describe(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\nb\x1b[2J")
	f.Fuzz(func(t *testing.T, s string) {
		got := printable(s)
		if len([]rune(got)) > maxOutput || strings.ContainsAny(got, "\n\r\x1b\x00") || strings.ToValidUTF8(got, "") != got {
			t.Errorf("%q", got)
		}
	})
}
