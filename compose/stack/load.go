// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/paths"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
)

// FileNames are the names of a Compose file, in the order in which a folder
// is searched: Compose's own.
var FileNames = []string{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}

// Options for Load.
type Options struct {
	// Digests are the image digests of a lock or a release by reference
	// without digest. Where it is not nil every service's image in Project
	// becomes NAME@DIGEST (PinnedName), and an image that is not in it is a
	// problem. This is how the box loads.
	Digests map[string]string
}

// Load reads and checks the stack at path: a Compose file named as in
// FileNames, or the folder that holds one. Interpolation sees the folder's
// .env and the defaults in the file, never the host's environment. The error
// is a *Problems unless ctx ended.
func Load(ctx context.Context, path string, opts Options) (*Stack, error) {
	dir, name, err := find(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, problem(path, err.Error(), "name the folder of the stack")
	}
	defer root.Close()
	return load(ctx, root, dir, name, opts)
}

func find(path string) (dir, name string, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", "", problem(path, err.Error(), "")
	}
	st, err := os.Stat(abs)
	if err != nil {
		return "", "", problem(path, reason(err), "name the Compose file of the stack")
	}
	dir, name = filepath.Dir(abs), filepath.Base(abs)
	if st.IsDir() {
		dir, name = abs, ""
	}
	for _, n := range FileNames {
		if _, err := os.Lstat(filepath.Join(dir, n)); err != nil {
			continue
		}
		switch name {
		case "", n:
			return dir, n, nil
		default:
			// The box finds the file by its name alone, so only the first of
			// the known names can be the stack's.
			if slices.Contains(FileNames, name) {
				return "", "", problem(name, n+" lies in the same folder and comes first", "keep one of them")
			}
		}
	}
	if name == "" {
		return "", "", problem(path, "the folder holds no Compose file", "add a compose.yaml")
	}
	return "", "", problem(name, "a stack's Compose file is found by its name on the box", "rename it to compose.yaml")
}

func load(ctx context.Context, root *os.Root, dir, name string, opts Options) (_ *Stack, err error) {
	// compose-go is given only what passed the checks before it, but it is
	// not ours and what it reads is: a panic there is a bad stack, not a bug
	// to crash the supervisor with.
	defer func() {
		if r := recover(); r != nil {
			err = problem(name, fmt.Sprintf("compose-go gave up: %v", r), "simplify the file until it loads")
		}
	}()
	l := &loading{root: root, dir: dir, src: &sources{}, have: map[string]bool{}, probs: &Problems{}}
	l.read(name)
	if err := l.probs.err(); err != nil {
		return nil, err
	}
	for _, s := range l.src.list {
		l.checkVariables(s)
		l.checkSchema(s)
	}
	l.checkComposeVariables()
	project := l.projectName()
	if err := l.probs.err(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}

	details := types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, name), Content: l.src.list[0].data}},
		Environment: maps.Clone(l.src.list[0].env),
	}
	enabled := l.enabledProfiles()
	options := []func(*loader.Options){func(o *loader.Options) {
		o.Profiles = enabled
		o.SetProjectName(project, true)
		o.Interpolate.Substitute = substitute
		// Paths stay relative until lint has seen them: an absolute one
		// would be right on this host only.
		o.ResolvePaths = false
		// Both are done here, with lines: checkSchema and checkProject.
		o.SkipValidation = true
		o.SkipConsistencyCheck = true
		o.ResourceLoaders = append(o.ResourceLoaders, noRemote{})
	}}
	dict, err := loader.LoadModelWithContext(ctx, details, options...)
	if err != nil {
		return nil, l.foreign(ctx, err)
	}
	l.dropDisabled(dict, enabled)
	generated := l.generated(dict)
	readable := l.readableFrom(dict)
	l.ext = l.extensions(dict)
	l.lintKeys(dict)
	l.collectFiles(dict)
	if err := l.probs.err(); err != nil {
		return nil, err
	}
	if err := paths.ResolveRelativePaths(dict, dir, nil); err != nil {
		return nil, l.foreign(ctx, err)
	}
	p, err := loader.ModelToProject(dict, loader.ToOptions(&details, options), details)
	if err != nil {
		return nil, l.foreign(ctx, err)
	}
	p.ComposeFiles = []string{filepath.Join(dir, name)}
	// Compose-go adds this for its own interpolation; it is no setting.
	delete(p.Environment, consts.ComposeProjectName)

	l.checkProject(p)
	order := l.order(p)
	l.checkLiterals(p)
	images := l.images(p, order)
	if opts.Digests != nil {
		l.pin(p, images, opts.Digests)
	}
	if err := l.probs.err(); err != nil {
		return nil, err
	}
	return &Stack{
		Name: project, Dir: dir, File: name, Project: p, Services: order,
		Secrets: generated, ReadableFrom: readable,
		Extensions: l.ext.services, VolumeBudgets: l.ext.volumes, Profiles: l.ext.profiles, images: images, files: l.files, src: l.src,
	}, nil
}

// loading is one run of Load.
type loading struct {
	root  *os.Root
	dir   string
	src   *sources
	files []file
	have  map[string]bool // paths in files
	bytes int64           // sum of their sizes
	probs *Problems
	// disabled maps services that no enabled profile has to their profiles.
	disabled map[string][]string
	ext      extended // before lintKeys, which asks what a reason allows
}

// report adds a problem at the line of a key path.
func (l *loading) report(key []string, text, mend string) {
	f, line := l.src.line(key...)
	l.probs.add(Problem{File: f, Line: line, Key: strings.Join(key, "."), Text: text, Mend: mend})
}

func (l *loading) projectName() string {
	main := l.src.list[0]
	name, _ := scalarAt(main.node, "name")
	if name != "" {
		name, _ = substitute(name, main.lookup)
	}
	switch {
	case name == "":
		l.probs.add(Problem{File: main.rel, Line: 1, Key: "name", Text: "the stack has no name",
			Mend: "add a top-level name, for example `name: demo`: containers and volumes on the box are called by it"})
	case loader.NormalizeProjectName(name) != name || len(name) > 40:
		l.report([]string{"name"}, fmt.Sprintf("%q is no project name", name),
			"use up to 40 of a-z, 0-9, - and _, starting with a letter or digit")
	}
	return name
}

// substitute interpolates as Compose does, without its warnings on stderr:
// checkVariables has refused what they are about.
func substitute(s string, lookup template.Mapping) (string, error) {
	return template.SubstituteWithOptions(s, lookup, template.WithoutLogging)
}

// noRemote stands before compose-go's local loader and takes what would leave
// the host. readIncludes and readExtends refuse it first, with the line; this
// is the bolt behind the door.
type noRemote struct{}

func (noRemote) Accept(path string) bool { return remote(path) }
func (noRemote) Dir(path string) string  { return path }
func (noRemote) Load(_ context.Context, path string) (string, error) {
	return "", fmt.Errorf("%s is remote: a stack is its folder only", path)
}

func remote(path string) bool {
	return strings.Contains(path, "://") || strings.Contains(path, "@") || strings.HasPrefix(path, "oci:") ||
		strings.HasPrefix(path, "github.com/")
}

var (
	keyInText   = regexp.MustCompile(`\b(?:services|networks|volumes|secrets|configs)\.[A-Za-z0-9_.\[\]-]+`)
	circular    = regexp.MustCompile(`(\S+) in \S+ extends .*`)
	placeInText = regexp.MustCompile(`^(\S+): line (\d+):? (.+)$`)
	lineInText  = regexp.MustCompile(`line (\d+)`)
)

// foreign turns an error of compose-go into a problem with the best line its
// text allows.
func (l *loading) foreign(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	text := strings.ReplaceAll(err.Error(), l.dir+string(filepath.Separator), "")
	text = strings.Join(strings.Fields(text), " ")
	key := strings.TrimRight(keyInText.FindString(text), ".")
	var path []string
	if m := circular.FindStringSubmatch(text); m != nil {
		l.report([]string{"services", m[1], "extends"}, "extends cycle: "+m[0], dropIt)
		return l.probs.err()
	}
	if m := placeInText.FindStringSubmatch(text); m != nil && filepath.IsLocal(m[1]) {
		line, _ := strconv.Atoi(m[2])
		l.probs.add(Problem{File: m[1], Line: line, Text: m[3], Mend: "correct the line"})
		return l.probs.err()
	}
	if key != "" {
		path = strings.Split(strings.NewReplacer("[", ".", "]", "").Replace(key), ".")
		text = strings.TrimLeft(strings.TrimPrefix(text, key), ": ")
	}
	l.report(path, text, "see the Compose file reference for this key")
	return l.probs.err()
}

func problem(file, text, mend string) error {
	return &Problems{List: []Problem{{File: file, Text: text, Mend: mend}}}
}

// reason is an error of the file system without operation and path, which
// the problem has already.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
