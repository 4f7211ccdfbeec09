// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"math"
	"path"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]struct {
		n         int64
		unlimited bool
		ok        bool
	}{
		"12\n": {12, false, true}, "max\n": {0, true, true}, "-1\n": {0, true, true}, "9223372036854771712\n": {0, true, true},
		"99999999999999999999999\n": {0, true, true}, "": {}, "x": {}, "12 3": {}, "0\n": {0, false, true},
	} {
		if n, unlimited, ok := single([]byte(in)); n != want.n || unlimited != want.unlimited || ok != want.ok {
			t.Errorf("single %q: %d %v %v", in, n, unlimited, ok)
		}
	}
	for in, want := range map[string]float64{"max 100000\n": 0, "150000 100000\n": 1.5, "50000 0\n": -1, "5\n": -1, "": -1} {
		if got, ok := quotaCores([]byte(in)); ok != (want >= 0) || ok && got != want {
			t.Errorf("quotaCores %q: %v %v", in, got, ok)
		}
	}
	for in, want := range map[string]float64{"some avg10=12.34 avg60=0": 0.1234, "some avg10=100.00 x": 1, "some avg10=0.05": 0.0005, "some avg10=101.00": -1, "some avg10=1.5": -1, "full avg10=1.00": -1} {
		if got, _, ok := averages([]byte(in)); ok != (want >= 0) || ok && math.Abs(got-want) > 1e-12 {
			t.Errorf("averages %q: %v %v", in, got, ok)
		}
	}
	if n, ok := keyed([]byte("total_inactive_file 5\ninactive_file 7\n"), "inactive_file"); n != 7 || !ok {
		t.Error("a key is found inside another")
	}
	if used, total := disk(100, 40, 30, 4096); used != 60*4096 || total != 90*4096 {
		t.Errorf("disk: %d of %d", used, total)
	}
	if got := unescape(`/a\040b\134c\9`); got != `/a b\c\9` {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "12\n", "max\n", "cpu  1 2 3 4 5 6 7 8\ncpu0 1\n", "cpu\n", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n",
		"8:0 Read 1\n8:0 Write 2\nTotal 3\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "4:cpu,memory:/docker/x\n0::/y\n", `25 24 0:22 / /a\040b rw - cgroup cgroup rw,memory`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, unlimited, ok := single(b); n < 0 || unlimited && n != 0 || !ok && n != 0 {
			t.Errorf("single: %d %v %v", n, unlimited, ok)
		}
		if n, _ := keyed(b, "inactive_file"); n < 0 {
			t.Errorf("keyed: %d", n)
		}
		if c, ok := quotaCores(b); ok && (c < 0 || math.IsNaN(c) || math.IsInf(c, 0)) {
			t.Errorf("quotaCores: %v", c)
		}
		if s, full, _ := averages(b); s < 0 || s > 1 || full < 0 || full > 1 {
			t.Errorf("averages: %v %v", s, full)
		}
		if busy, cpus, err := stat(b); err == nil && (busy < 0 || cpus < 0) {
			t.Errorf("stat: %v %v", busy, cpus)
		}
		yes := func([]byte) bool { return true }
		if x := ioStat(b, yes); x.read < 0 || x.written < 0 || x.reads < 0 || x.writes < 0 {
			t.Errorf("ioStat: %+v", x)
		}
		if r, w := ioBytes(b, yes); r < 0 || w < 0 {
			t.Errorf("ioBytes: %d %d", r, w)
		}
		for c := range parseMounts(b).at {
			if strings.Contains(c, ",") {
				t.Errorf("controller %q", c)
			}
		}
		if p, ok := parseGroup(b, "memory"); ok && (!strings.HasPrefix(p, "/") || path.Clean(p) != p) {
			t.Errorf("group %q leaves its hierarchy", p)
		}
	})
}
