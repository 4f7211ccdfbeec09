// SPDX-License-Identifier: Apache-2.0

// Package marketplace holds a baked image against what shops for machine images
// reject. It judges the bytes of the disk: the EFI system partition, and the
// root and factory file systems as tar streams, in which each file is read once
// and none is unpacked. It starts nothing, needs no root and changes nothing.
// It does not look for known vulnerabilities, and says so in its report.
package marketplace

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Result says what became of a check.
type Result string

// Results, the worst last.
const (
	OK Result = "ok"
	// Note is for a person to look at; no shop rejects it by itself.
	Note Result = "note"
	// Refused is what a shop, or the promise of this project, does not allow.
	Refused Result = "refused"
)

// worse puts the results in order.
func worse(a, b Result) bool {
	order := []Result{OK, Note, Refused}
	return slices.Index(order, a) > slices.Index(order, b)
}

// Row is one check.
type Row struct {
	// Check is its name, which does not change.
	Check  string `json:"check"`
	Result Result `json:"result"`
	// LookedAt is what was read, in a few words.
	LookedAt string `json:"looked_at"`
	// Found are what it stumbled over, at most MaxFound; More counts the rest.
	Found []string `json:"found,omitempty"`
	More  int      `json:"more,omitempty"`
	// Rule is where it is written, Why what it is for, Remedy what to do.
	Rule   string `json:"rule"`
	Why    string `json:"why"`
	Remedy string `json:"remedy"`
}

// MaxFound is the most findings a row lists.
const MaxFound = 20

// Report is the outcome, one row a check, always the same checks in the same
// order.
type Report struct {
	Format  int   `json:"format"`
	Refused int   `json:"refused"`
	Notes   int   `json:"notes"`
	Rows    []Row `json:"rows"`
}

// Image is what is looked at.
type Image struct {
	// Root and Factory are the two file systems; Factory may be nil.
	Root, Factory *Tree
	Boot          *Boot
	// SBOM is the bill of materials in CycloneDX JSON, as it is delivered.
	SBOM []byte
	// Certificate is the one that the boot programs must be signed with.
	Certificate *x509.Certificate
	// Now is the day on which systems count as supported or not.
	Now time.Time
}

// finding is one thing that a check stumbled over.
type finding struct {
	result Result
	text   string
}

// findings collects what one check says.
type findings struct {
	looked string
	all    []finding
}

func (f *findings) lookedAt(format string, args ...any) { f.looked = fmt.Sprintf(format, args...) }

func (f *findings) refuse(format string, args ...any) {
	f.all = append(f.all, finding{Refused, fmt.Sprintf(format, args...)})
}

func (f *findings) note(format string, args ...any) {
	f.all = append(f.all, finding{Note, fmt.Sprintf(format, args...)})
}

// check is one row of the table of checks.
type check struct {
	name, rule, why, remedy string
	run                     func(im *Image, f *findings)
}

// Check runs every check.
func Check(im Image) Report {
	rep := Report{Format: 1}
	for _, c := range checks() {
		var f findings
		c.run(&im, &f)
		row := Row{Check: c.name, Result: OK, LookedAt: f.looked, Rule: c.rule, Why: c.why, Remedy: c.remedy}
		slices.SortStableFunc(f.all, func(a, b finding) int {
			if a.result != b.result && worse(a.result, b.result) {
				return -1
			} else if a.result != b.result {
				return 1
			}
			return strings.Compare(a.text, b.text)
		})
		for _, x := range f.all {
			if worse(x.result, row.Result) {
				row.Result = x.result
			}
			if len(row.Found) == MaxFound {
				row.More++
				continue
			}
			row.Found = append(row.Found, printable(x.text))
		}
		switch row.Result {
		case Refused:
			rep.Refused++
		case Note:
			rep.Notes++
		}
		rep.Rows = append(rep.Rows, row)
	}
	return rep
}

// printable keeps control characters of file names out of terminals and logs.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
