// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	spdx = "// SPDX-License-Identifier: Apache-2.0\n"
	// longFile lines are named, tooLongFile lines are refused.
	longFile    = 400
	tooLongFile = 500
	// maxSource bounds one Go file; a larger one is not source.
	maxSource = 4 << 20
)

// Finding is one broken rule.
type Finding struct {
	File string
	Line int
	// Rule is a short stable name: import, leaf, outside, exec, sleep, spdx,
	// length, area, doc.
	Rule string
	Text string
	// Warn marks what is named but not refused.
	Warn bool
}

func (f Finding) String() string {
	return fmt.Sprintf("%s:%d: [%s] %s", f.File, f.Line, f.Rule, f.Text)
}

// Check reads every Go file below root, whatever its build tags, and returns
// what breaks the rules in the order of file and line. The error is about
// reading: a file that does not parse is an error too.
func Check(root fs.FS) ([]Finding, error) {
	var all []Finding
	documented := map[string]bool{}
	first := map[string]string{}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipDir(name) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" || !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Size() > maxSource {
			return fmt.Errorf("%s: %d bytes is more than the %d a Go file may have", name, info.Size(), maxSource)
		}
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		found, hasDoc, err := checkFile(name, src)
		if err != nil {
			return err
		}
		all = append(all, found...)
		if !strings.HasSuffix(name, "_test.go") {
			dir := path.Dir(name)
			documented[dir] = documented[dir] || hasDoc
			if first[dir] == "" {
				first[dir] = name
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for dir, name := range first {
		if !documented[dir] {
			all = append(all, Finding{File: name, Line: 1, Rule: "doc",
				Text: "package " + dir + " has no package comment: give its job, its inputs and what it refuses"})
		}
	}
	slices.SortFunc(all, func(a, b Finding) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return all, nil
}

// skipDir leaves out what is not our source: hidden folders, products, and
// test data, which may be broken on purpose.
func skipDir(name string) bool {
	base := path.Base(name)
	if name == "build" || name == "dist" || name == "cache" {
		return true
	}
	return name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "vendor")
}

func checkFile(name string, src []byte) (found []Finding, hasDoc bool, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, false, err
	}
	add := func(pos token.Pos, rule, text string) {
		found = append(found, Finding{File: name, Line: fset.Position(pos).Line, Rule: rule, Text: text})
	}
	pkg := path.Dir(name)
	if pkg == "." || !slices.Contains(areas, area(pkg)) {
		add(file.Package, "area", "Go code lives in "+strings.Join(areas, ", ")+" only: the top level is fixed")
	}
	generated := ast.IsGenerated(file)
	if !generated && !bytes.HasPrefix(src, []byte(spdx)) {
		add(file.Package, "spdx", "the first line must be "+strings.TrimSpace(spdx))
	}
	if lines := bytes.Count(src, []byte("\n")); !generated && lines > longFile {
		found = append(found, Finding{File: name, Line: lines, Rule: "length", Warn: lines <= tooLongFile,
			Text: fmt.Sprintf("%d lines, more than %d: split it by act", lines, longFile)})
	}
	names := map[string]string{} // local name -> import path
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, false, err
		}
		local := path.Base(imported)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		names[local] = imported
		if own, ok := strings.CutPrefix(imported, Module+"/"); ok {
			if why := judge(pkg, own); why != "" {
				add(spec.Pos(), "import", fmt.Sprintf("%s must not import %s: %s", pkg, own, why))
			}
		} else if why := judgeOutside(pkg, imported); why != "" {
			add(spec.Pos(), "outside", fmt.Sprintf("%s must not import %s: %s", pkg, imported, why))
		}
		if imported == "os/exec" && !mayExec(name) {
			add(spec.Pos(), "exec", "os/exec is imported in one file per area: "+strings.Join(execList(), ", "))
		}
		if imported == "time" && local == "." {
			add(spec.Pos(), "sleep", "package time must not be imported into the file's own scope")
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		base, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		switch names[base.Name] + "." + sel.Sel.Name {
		case "time.Sleep":
			add(sel.Pos(), "sleep", "time.Sleep waits for nothing: wait for the event, with a deadline that names it")
		case "os.StartProcess", "syscall.Exec", "syscall.ForkExec", "syscall.StartProcess", "golang.org/x/sys/unix.Exec":
			if !mayExec(name) {
				add(sel.Pos(), "exec", sel.Sel.Name+" starts a process; that is done in one file per area: "+strings.Join(execList(), ", "))
			}
		}
		return true
	})
	return found, generated || file.Doc != nil, nil
}

func execList() []string {
	var list []string
	for file := range execFiles {
		list = append(list, file)
	}
	slices.Sort(list)
	return list
}
