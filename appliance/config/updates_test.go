// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"
)

func TestUpdates(t *testing.T) {
	c, problems := Parse("x", []byte("updates:\n  source: https://u:p@r.example/demo\n  channel: beta\n  auto: true\n  window: Mon-Fri 01:00-02:30\n  bandwidth: 1.5 MB/s\n"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	u := c.Updates
	if u.Channel != "beta" || !u.Auto || u.Window != "Mon-Fri 01:00-02:30" || u.Bandwidth.Bytes() != 1_500_000 {
		t.Errorf("%+v", u)
	}
	if text := c.String(); strings.Contains(text, "u:p@") || !strings.Contains(text, "updates.window: Mon-Fri 01:00-02:30") {
		t.Errorf("%s", text)
	}
	for text, want := range map[string]string{
		"{source: ftp://x}":            "unknown scheme",
		"{source: relative}":           "no source of releases",
		"{source: \"https://h/?q=1\"}": "is no address",
		"{channel: \"A b\"}":           "is no channel",
		"{window: yesterday}":          "no maintenance window",
		"{bandwidth: fast}":            "is no rate",
		"{bandwidth: 1 B/s}":           "too slow",
		"{auto: true}":                 "without a window",
		"{often: 3}":                   "often",
	} {
		_, problems := Parse("x", []byte("updates: "+text+"\n"))
		if len(problems) != 1 || !strings.Contains(problems[0].String(), want) {
			t.Errorf("%s: %v, want %q", text, problems, want)
		}
	}
	for text, want := range map[string]int64{"": 0, "10 MB/s": 10_000_000, "500kB/s": 500_000, "2 GB/s": 2_000_000_000, "20000 B/s": 20_000, "-1 MB/s": 0} {
		if got := Rate(text).Bytes(); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func FuzzUpdates(f *testing.F) {
	for _, s := range []string{"https://r.example/x", "oci://h/r", "usb:", "/srv", "10 MB/s", "stable"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, check := range []func(string) (string, string, string){updateSource, channel, window, bandwidth} {
			clean, text, mend := check(s)
			if text == "" && clean != s || text != "" && (mend == "" || clean != "") {
				t.Errorf("%q: %q, %q, %q", s, clean, text, mend)
			}
		}
	})
}
