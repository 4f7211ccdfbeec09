// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/compose-spec/compose-go/v2/types"
)

// field is one value below x-holdfast and where it is written. Its methods
// return what the value says, or report it and return zero.
type field struct {
	l   *loading
	key []string
	v   any
}

func (f field) bad(text, mend string) { f.l.report(f.key, text, mend) }

func (f field) at(key string, v any) field {
	return field{f.l, append(slices.Clone(f.key), key), v}
}

// shown is the value in a message, bounded.
func (f field) shown() string {
	switch f.v.(type) {
	case map[string]any, []any:
		return "this"
	case nil:
		return "nothing"
	}
	s := fmt.Sprint(f.v)
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// mapping returns the known keys of a mapping and reports all others; nil
// where the value is none.
func (f field) mapping(mend string, known ...string) map[string]field {
	m, ok := f.v.(map[string]any)
	if !ok {
		f.bad("this must be a mapping", mend)
		return nil
	}
	out := map[string]field{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := f.at(k, m[k])
		if !slices.Contains(known, k) {
			v.bad("unknown key", knownKeys(known))
			continue
		}
		out[k] = v
	}
	return out
}

func knownKeys(known []string) string {
	if len(known) == 1 {
		return "known is " + known[0]
	}
	last := len(known) - 1
	return "known are " + strings.Join(known[:last], ", ") + " and " + known[last]
}

// names returns the entries of a mapping whose keys must be names of the
// stack's own services or volumes.
func (f field) names(what string, have map[string]any) []field {
	m, ok := f.v.(map[string]any)
	if !ok {
		f.bad("this must be a mapping", "write one "+what+" a line, by its name")
		return nil
	}
	var out []field
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := f.at(k, m[k])
		if _, ok := have[k]; !ok {
			v.bad(fmt.Sprintf("the %s %q does not exist", what, k), "correct the name")
			continue
		}
		out = append(out, v)
	}
	return out
}

// list returns 1 to at most most items.
func (f field) list(most int) []field {
	items, ok := f.v.([]any)
	if !ok || len(items) == 0 || len(items) > most {
		f.bad(fmt.Sprintf("this must be a list of 1 to %d", most), "write one, or remove the key")
		return nil
	}
	out := make([]field, len(items))
	for i, v := range items {
		out[i] = f.at(strconv.Itoa(i), v)
	}
	return out
}

func (f field) flag() bool {
	b, ok := f.v.(bool)
	if !ok {
		f.bad(f.shown()+" is neither true nor false", "write true or false, without quotes")
	}
	return b
}

func (f field) one(of ...string) string {
	s, ok := f.v.(string)
	if !ok || !slices.Contains(of, s) {
		f.bad(f.shown()+" is not known", "write one of "+strings.Join(of, ", "))
		return ""
	}
	return s
}

func (f field) whole(least, most int) int {
	n, ok := f.v.(int)
	if !ok || n < least || n > most {
		f.bad(f.shown()+" is out of bounds", fmt.Sprintf("write a whole number from %d to %d", least, most))
		return 0
	}
	return n
}

// text takes least to most characters, none of which is a control character.
func (f field) text(least, most int) string {
	s, ok := f.v.(string)
	n := len([]rune(s))
	if !ok || n < least || n > most || strings.ContainsFunc(s, unicode.IsControl) && most == maxReason ||
		strings.ContainsRune(s, 0) {
		f.bad("this must be a text", fmt.Sprintf("write %d to %d characters, in quotes", least, most))
		return ""
	}
	return s
}

func (f field) duration(least, most time.Duration) time.Duration {
	s, _ := f.v.(string)
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most {
		f.bad(f.shown()+" is no time within the bounds", fmt.Sprintf("write a time from %s to %s, such as 30s", timeText(least), timeText(most)))
		return 0
	}
	return d
}

// timeText writes whole units, as the bounds are.
func timeText(d time.Duration) string {
	s := strings.Replace(d.String(), "m0s", "m", 1)
	return strings.Replace(s, "h0m", "h", 1)
}

// cores reads processors as Compose does: a number, or a text that is one.
func (f field) cores() float64 {
	var n float64
	switch v := f.v.(type) {
	case int:
		n = float64(v)
	case float64:
		n = v
	case string:
		var err error
		if n, err = strconv.ParseFloat(v, 64); err != nil {
			n = 0
		}
	}
	if !(n >= minCPUs && n <= maxCPUs) { // not a number is neither
		f.bad(f.shown()+" is no number of processors", fmt.Sprintf("write a number from %v to %d, such as 0.5", minCPUs, maxCPUs))
		return 0
	}
	return n
}

// sizeRE is what Compose takes as a size, without the exponents and infinities
// that a float would bring along.
var sizeRE = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,3})? ?([kKmMgGtT]([iI]?[bB])?|[bB])?$`)

// bytes reads a size as Compose does: bytes, or a text such as "512M" or
// "4GiB". All units are binary.
func (f field) bytes(least int64) int64 {
	n := int64(-1)
	switch v := f.v.(type) {
	case int:
		n = int64(v)
	case string:
		n, _ = ParseSize(v)
	}
	if n < least || n > maxSize {
		f.bad(f.shown()+" is no size within the bounds", fmt.Sprintf("write a size from %s to %s, such as 512M or 4GiB", sizeText(least), sizeText(maxSize)))
		return 0
	}
	return n
}

// ParseSize reads a size in bytes as a Compose file writes it, such as "512M",
// "4GiB" or "1048576": all units are binary. It takes 1 byte to 64 TiB.
func ParseSize(text string) (int64, error) {
	var n types.UnitBytes
	if !sizeRE.MatchString(text) || n.DecodeMapstructure(text) != nil || n < 1 || n > maxSize {
		return -1, fmt.Errorf("%.40q is no size: write one such as 512M or 4GiB, at most %s", text, sizeText(maxSize))
	}
	return int64(n), nil
}

// sizeText writes whole binary units, as the bounds are.
func sizeText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n >= 1024 && n%1024 == 0 && i+1 < len(units) {
		n, i = n/1024, i+1
	}
	return fmt.Sprintf("%d %s", n, units[i])
}
