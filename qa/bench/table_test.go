// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
)

func walls(seconds ...float64) (s []sample) {
	for _, v := range seconds {
		d := time.Duration(v * float64(time.Second))
		s = append(s, sample{wall: d, cpu: d})
	}
	return s
}

func TestCompare(t *testing.T) {
	rows := []row{
		{name: "mkosi", samples: walls(120, 100, 500)},
		{name: "cold", samples: walls(60, 61, 62), limit: 0.65},
		{name: "again", samples: walls(6, 7), limit: 0.03},
	}
	want := `| run | wall, median | all runs | processor time | of mkosi | at most |
|---|---:|---|---:|---:|---:|
| mkosi | 120.0 s | 120.0, 100.0, 500.0 | 120.0 s |  |  |
| cold | 61.0 s | 60.0, 61.0, 62.0 | 61.0 s | 0.508 | 0.65 |
| again | 6.50 s | 6.00, 7.00 | 6.50 s | 0.054 | 0.03 **missed** |
`
	if got := compare(rows); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSourcesAreDeb822(t *testing.T) {
	got, err := deb822("# a comment\n\ndeb http://mirror.example/debian trixie main\ndeb [arch=amd64] http://mirror.example/security trixie-security main contrib\n")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(got, "Types: deb\n"); n != 2 {
		t.Errorf("%d sources in\n%s", n, got)
	}
	if !strings.Contains(got, "URIs: http://mirror.example/security\nSuites: trixie-security\nComponents: main contrib\n") {
		t.Errorf("the second source is not in\n%s", got)
	}
	if _, err := deb822("nonsense\n"); err == nil {
		t.Error("nonsense was taken")
	}
}
