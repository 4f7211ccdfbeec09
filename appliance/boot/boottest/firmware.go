// SPDX-License-Identifier: Apache-2.0

package boottest

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/appliance/boot"
)

// Booted is what firmware and systemd-boot started.
type Booted struct {
	// Loader is the copy of systemd-boot that was started.
	Loader string
	// Name is the image's name before the boot was counted, After the one
	// that it has since.
	Name, After string
	// RootHash of the root that it boots.
	RootHash string
}

const (
	linux    = "EFI/Linux"
	entered  = "EFI/systemd/systemd-bootx64.efi" // by a boot entry in NVRAM
	fallback = "EFI/BOOT/BOOTX64.EFI"
	maxTries = 1<<31 - 1
)

// image is one entry of systemd-boot's menu.
type image struct {
	name       string
	left, done int // -1, -1 without a counter
	next       string
}

// Boot chooses as firmware and systemd-boot 257 do: the loader at the
// fallback place (nothing depends on EFI variables), and of the images in
// EFI/Linux that are whole the first in this order: spent ones last (they are
// booted where there is nothing else), then by name, the newest version first
// (src/boot/boot.c: boot_entry_compare; all have the same sort key and no
// version, as their os-release names none). The counter goes down by a rename
// before the start (boot_entry_bump_counters).
func Boot(disk boot.FS) (Booted, error) {
	b := Booted{Loader: fallback}
	if _, _, err := disk.Open(fallback); errors.Is(err, fs.ErrNotExist) {
		b.Loader = entered
	}
	if _, _, err := disk.Open(b.Loader); err != nil {
		return Booted{}, fmt.Errorf("firmware finds nothing to start: %w", err)
	}
	files, err := disk.List(linux)
	if err != nil {
		return Booted{}, err
	}
	var menu []image
	for _, f := range files {
		name := strings.ToLower(f.Name)
		if f.Dir || !strings.HasSuffix(name, ".efi") {
			continue
		}
		r, size, err := disk.Open(linux + "/" + f.Name)
		if err != nil {
			return Booted{}, err
		}
		if boot.RootHash(r, size) == "" {
			continue // no sections that it needs: not in the menu
		}
		menu = append(menu, counters(f.Name))
	}
	if len(menu) == 0 {
		return Booted{}, errors.New("systemd-boot finds no image")
	}
	slices.SortStableFunc(menu, order)
	pick := menu[0]
	b.Name, b.After = pick.name, pick.name
	if pick.left >= 0 && pick.next != pick.name {
		if err := disk.Rename(linux+"/"+pick.name, linux+"/"+pick.next); err != nil && !errors.Is(err, fs.ErrExist) {
			return Booted{}, err
		} else if err == nil { // a rename that fails is passed over
			b.After = pick.next
		}
	}
	r, size, err := disk.Open(linux + "/" + b.After)
	if err != nil {
		return Booted{}, err
	}
	b.RootHash = boot.RootHash(r, size)
	return b, nil
}

var countersShape = regexp.MustCompile(`(?i)^(.*\+)([0-9]+)(?:-([0-9]+))?(\.efi)$`)

func counters(name string) image {
	m := countersShape.FindStringSubmatch(name)
	if m == nil {
		return image{name: name, left: -1, done: -1}
	}
	left, err := strconv.Atoi(m[2])
	done, err2 := strconv.Atoi(cmp.Or(m[3], "0"))
	if err != nil || err2 != nil || left > maxTries || done > maxTries {
		return image{name: name, left: -1, done: -1}
	}
	return image{name: name, left: left, done: done, next: fmt.Sprintf("%s%d-%d%s", m[1], max(left-1, 0), min(done+1, maxTries), m[4])}
}

func order(a, b image) int {
	spent := func(i image) int {
		if i.left == 0 {
			return 1
		}
		return 0
	}
	if c := cmp.Compare(spent(a), spent(b)); c != 0 {
		return c
	}
	if c := -CompareVersions(strings.ToLower(a.name), strings.ToLower(b.name)); c != 0 {
		return c
	}
	if a.left < 0 || b.left < 0 {
		return 0
	}
	return cmp.Or(-cmp.Compare(a.left, b.left), cmp.Compare(a.done, b.done))
}

// CompareVersions is systemd's strverscmp_improved ("Version Format
// Specification" of the UAPI Group): -1, 0 or 1 as a is older, the same or
// newer.
func CompareVersions(a, b string) int {
	valid := func(c byte) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("~-^.", c) >= 0
	}
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	at := func(s string, i int) byte {
		if i < len(s) {
			return s[i]
		}
		return 0
	}
	i, j := 0, 0
	for {
		for i < len(a) && !valid(a[i]) {
			i++
		}
		for j < len(b) && !valid(b[j]) {
			j++
		}
		// '~' sorts before the end, and the end before all other.
		if x, y := at(a, i) == '~', at(b, j) == '~'; x || y {
			if c := cmp.Compare(num(y), num(x)); c != 0 {
				return c
			}
			i, j = i+1, j+1
			continue
		}
		if i >= len(a) || j >= len(b) {
			return cmp.Compare(num(i < len(a)), num(j < len(b)))
		}
		sep := false
		for _, s := range []byte("-^.") {
			if x, y := a[i] == s, b[j] == s; x || y {
				if c := cmp.Compare(num(y), num(x)); c != 0 {
					return c
				}
				i, j, sep = i+1, j+1, true
				break
			}
		}
		if sep {
			continue
		}
		if digit(a[i]) || digit(b[j]) {
			x, y := run(a, &i, digit), run(b, &j, digit)
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
				return c
			}
			continue
		}
		letter := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
		x, y := run(a, &i, letter), run(b, &j, letter)
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
	}
}

func num(b bool) int {
	if b {
		return 1
	}
	return 0
}

// run takes what is in a class from i on.
func run(s string, i *int, in func(byte) bool) string {
	from := *i
	for *i < len(s) && in(s[*i]) {
		*i++
	}
	return s[from:*i]
}
