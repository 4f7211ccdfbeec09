// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"bytes"
	"debug/elf"
	"fmt"
	"path"
	"slices"
	"strings"
)

// libraryFolders are where the dynamic linker looks without a cache or a
// search path, in the form paths have after the merge into /usr.
var libraryFolders = []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/lib64"}

// libraries lists what a layer's programs need from the dynamic linker (name
// -> a path that needs it) and which such names the layer has.
func (t *tree) libraries() (needs map[string]string, has []string, err error) {
	needs = map[string]string{}
	for _, p := range t.paths() {
		n := t.nodes[p]
		if n.mode.IsDir() {
			continue
		}
		if slices.Contains(libraryFolders, path.Dir(p)) {
			has = append(has, path.Base(p))
		}
		if n.data == nil {
			continue
		}
		magic := make([]byte, len(elf.ELFMAG))
		r := t.spool.open(n.data)
		if _, err := r.ReadAt(magic, 0); err != nil || !bytes.Equal(magic, []byte(elf.ELFMAG)) {
			continue
		}
		names, err := needed(r)
		if err != nil {
			return nil, nil, fmt.Errorf("%s of %s: %w", p, n.from, err)
		}
		for _, s := range names {
			if _, ok := needs[s]; !ok {
				needs[s] = p
			}
		}
	}
	slices.Sort(has)
	return needs, has, nil
}

// needed are the libraries and the interpreter one ELF file asks for.
func needed(r interface {
	ReadAt(p []byte, off int64) (int, error)
}) ([]string, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	var names []string
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return nil, nil
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b, err := readBounded(p.Open(), 4096)
		if err != nil {
			return nil, err
		}
		names = append(names, path.Base(strings.TrimRight(string(b), "\x00")))
	}
	libs, err := f.DynString(elf.DT_NEEDED)
	if err != nil {
		return nil, err
	}
	return append(names, libs...), nil
}

// checkImage refuses an image in which a package's dependency or a program's
// library is missing: such an image fails when it runs, or worse, later. It
// marks in excused the packages that a without of its layers explains.
func checkImage(r *Recipe, im Image, records map[string]*record, excused map[string]bool) error {
	have := map[string]bool{}
	without := map[string]string{}
	libs := map[string]bool{}
	for _, l := range im.Layers {
		for _, p := range records[l].Packages {
			have[p.Name] = true
			for _, c := range clauses(p.Provides) {
				have[c[0]] = true
			}
		}
		for w := range r.layer(l).Without {
			without[w] = l
		}
		for _, h := range records[l].Has {
			libs[h] = true
		}
	}
	for _, l := range im.Layers {
		for _, p := range records[l].Packages {
			for _, c := range clauses(p.Depends) {
				if slices.ContainsFunc(c, func(n string) bool { return have[n] }) {
					continue
				}
				i := slices.IndexFunc(c, func(n string) bool { return without[n] != "" })
				if i < 0 {
					return r.at(r.layer(l).line, "layer %s: package %s depends on %s, which no layer of image %s has: add it to packages, or to without with the reason",
						l, p.Name, strings.Join(c, " or "), im.Ref)
				}
				excused[without[c[i]]+" "+c[i]] = true
			}
		}
		for _, s := range sortedKeys(records[l].Needs) {
			if !libs[s] {
				return r.at(r.layer(l).line, "layer %s: %s needs the library %s, which no layer of image %s has: add the package that has it, or drop that path",
					l, records[l].Needs[s], s, im.Ref)
			}
		}
	}
	return nil
}

// clauses splits a relation field (Debian policy 7.1) into its comma-separated
// clauses of alternatives. Versions are not compared: all packages come from
// one resolved set.
func clauses(field string) [][]string {
	var all [][]string
	for _, clause := range strings.Split(field, ",") {
		var names []string
		for _, alt := range strings.Split(clause, "|") {
			fields := strings.Fields(strings.ReplaceAll(alt, "(", " ("))
			if len(fields) > 0 {
				name, _, _ := strings.Cut(fields[0], ":")
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			all = append(all, names)
		}
	}
	return all
}

// controlField is one field of a control stanza, folded lines joined.
func controlField(stanza, field string) string {
	var value strings.Builder
	in := false
	for _, line := range strings.Split(stanza, "\n") {
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			if in {
				value.WriteString(line)
			}
			continue
		}
		k, v, ok := strings.Cut(line, ":")
		if in = ok && strings.EqualFold(k, field); in {
			value.WriteString(v)
		}
	}
	return strings.TrimSpace(value.String())
}
