// SPDX-License-Identifier: Apache-2.0

//go:build engine

package fidelity

import (
	"context"
	"embed"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/stack"
)

// testdata lies in the program, which may run where the source is not.
//
//go:embed testdata
var testdata embed.FS

// leastCases is how many Compose files the suite promises.
const leastCases = 40

// case_ is one stack on the engine.
type case_ struct {
	*asking
	dir   string // of the stack
	files string // that we write for it
	// budget is what the machine gives it; nil leaves the stack's limits.
	budget *budget.Budget
	name   string // of the project
	st     *stack.Stack
}

var (
	// envLine is how a case says what its .env holds.
	envLine     = regexp.MustCompile(`(?m)^# \.env (.*)$`)
	projectName = regexp.MustCompile(`(?m)^name: *(\S+)`)
	imageName   = regexp.MustCompile(`(?m)(^ *|[{,] *)image:( *(?:&\S+ +)?)[^\s,}]+`)
	processors  = regexp.MustCompile(`\bcpus: *"?[0-9.]+"?`)
	generated   = regexp.MustCompile(`x-holdfast: *\{generate: password[^}]*\}`)
)

// newCase copies a stack into a folder of its own: compose is the text of its
// Compose file, beside the folder of other files.
func newCase(t *testing.T, compose string, beside fs.FS) *case_ {
	c := &case_{asking: ask(t), dir: filepath.Join(base, strings.ReplaceAll(t.Name(), "/", "-"), "stack")}
	c.files = filepath.Join(filepath.Dir(c.dir), "files")
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(c.dir, beside); err != nil {
		t.Fatal(err)
	}
	for _, name := range stack.FileNames {
		os.Remove(filepath.Join(c.dir, name))
	}
	var env strings.Builder
	for _, m := range envLine.FindAllStringSubmatch(compose, -1) {
		env.WriteString(m[1] + "\n")
	}
	if env.Len() > 0 {
		if err := os.WriteFile(filepath.Join(c.dir, ".env"), []byte(env.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.name = projectName.FindStringSubmatch(compose)[1]
	c.write(compose)
	t.Cleanup(func() { c.remove(c.name) })
	return c
}

func (c *case_) write(compose string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, "compose.yaml"), []byte(compose), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// secret is where a secret that the box makes lies.
func (c *case_) secret(name string) string { return filepath.Join(c.files, "secret-"+name) }

// desired is the whole path of ours: Load and Translate.
func (c *case_) desired() *supervise.Desired {
	c.t.Helper()
	var err error
	c.st, err = stack.Load(c.t.Context(), c.dir, stack.Options{Digests: map[string]string{ref: digest}})
	if err != nil {
		c.t.Fatal(err)
	}
	o := supervise.Options{Generation: 1, FilesDir: c.files, SecretFiles: map[string]string{}, Extensions: c.st.Extensions, Budget: c.budget}
	if err := os.MkdirAll(c.files, 0o700); err != nil {
		c.t.Fatal(err)
	}
	for _, s := range c.st.Secrets {
		o.SecretFiles[s.Name] = c.secret(s.Name)
		if err := os.WriteFile(c.secret(s.Name), []byte("made"), 0o444); err != nil {
			c.t.Fatal(err)
		}
	}
	d, err := supervise.Translate(c.st.Project, c.st.Services, o)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := supervise.WriteFiles(d.Files, nil); err != nil {
		c.t.Fatal(err)
	}
	return d
}

// ours creates the stack as the supervisor does; start runs it too, in order.
func (c *case_) ours(start bool) {
	c.t.Helper()
	d := c.desired()
	cli, err := engine.Open(host)
	if err != nil {
		c.t.Fatal(err)
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Minute)
	defer cancel()
	act := func(kind supervise.Kind, target, id string) string {
		c.t.Helper()
		id, err := supervise.Act(ctx, cli, d, supervise.Op{Kind: kind, Target: target, Container: id}, nil)
		if err != nil {
			c.t.Fatal(err)
		}
		return id
	}
	for _, n := range d.Networks {
		act(supervise.CreateNetwork, n.Name, "")
	}
	for _, v := range d.Volumes {
		act(supervise.CreateVolume, v.Name, "")
	}
	for _, s := range d.Services {
		id := act(supervise.Create, s.Name, "")
		if start {
			act(supervise.Start, s.Name, id)
		}
	}
}

// compose runs docker compose on the stack.
func (c *case_) compose(args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, plugin, args...)
	cmd.Dir = c.dir
	// No variable of the machine may find its way into the stack.
	cmd.Env = []string{"DOCKER_HOST=" + host, "HOME=" + base, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// theirs creates the same by docker compose.
func (c *case_) theirs(start bool) {
	c.t.Helper()
	if start {
		c.compose("up", "--detach", "--no-build", "--pull", "never")
		return
	}
	c.compose("create", "--no-build", "--pull", "never")
}

// used counts which intended differences the cases need.
var used = map[string]int{}

// judge compares what both made.
func (c *case_) judge(ours, theirs Things) {
	c.t.Helper()
	if len(ours) == 0 {
		c.t.Error("nothing was created")
	}
	for _, d := range Compare(ours, theirs) {
		i := slices.IndexFunc(Intended, func(i Intent) bool {
			return i.Is(d) && (i.Name != "budget" || c.budget != nil)
		})
		if i < 0 {
			c.t.Error(d)
			continue
		}
		used[Intended[i].Name]++
	}
}

// both creates a stack twice, one after the other, and compares.
func (c *case_) both(compose string, start bool) {
	c.t.Helper()
	c.ours(start)
	ours := c.look(c.name)
	c.remove(c.name)
	// docker compose knows nothing of secrets that a box makes: it is given
	// the file that was made.
	c.write(generated.ReplaceAllStringFunc(compose, func(string) string { return "file: " + c.secret(c.st.Secrets[0].Name) }))
	c.theirs(start)
	c.judge(ours, c.look(c.name))
}

// TestFiles holds each Compose file of testdata.
func TestFiles(t *testing.T) {
	cases, err := fs.Glob(testdata, "testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	beside, err := fs.Sub(testdata, "testdata/files")
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < leastCases {
		t.Errorf("%d cases, want %d", len(cases), leastCases)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			b, err := testdata.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c := newCase(t, string(b), beside)
			c.both(string(b), strings.HasPrefix(filepath.Base(file), "run-"))
		})
	}
}

// TestStacks holds the stacks of this repository, with the stand-in in the
// place of each image.
func TestStacks(t *testing.T) {
	if root == "" {
		t.Skip("the source is not here")
	}
	for _, pattern := range []string{"demo/1.0.0", "sourcegraph/*"} {
		files, err := filepath.Glob(filepath.Join(root, "compose/stacks", pattern, "compose.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			dir := filepath.Dir(file)
			t.Run(filepath.Base(filepath.Dir(dir)), func(t *testing.T) {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				// The engine refuses more processors than the machine has.
				text := processors.ReplaceAllString(string(b), "cpus: 1")
				text = imageName.ReplaceAllString(text, "${1}image:${2}"+ref)
				c := newCase(t, text, os.DirFS(dir))
				c.both(text, false)
			})
		}
	}
}

// TestBudget holds a service of a budget: nothing but its share of the machine
// may be other than docker compose's.
func TestBudget(t *testing.T) {
	text := "name: fid-budget\nservices:\n  web: {image: " + ref + ", command: [serve]}\n"
	c := newCase(t, text, os.DirFS(t.TempDir()))
	c.budget = &budget.Budget{Services: []budget.Service{{
		Name: "web", Class: stack.Critical, CPUWeight: 300, OOMScoreAdj: -500,
		Guaranteed: budget.Amount{CPU: 0.5, Memory: 32 << 20}, Limit: budget.Amount{CPU: 1, Memory: 64 << 20, Pids: 40},
	}}}
	c.both(text, false)
}

// TestIntended fails on an intended difference that no case shows any more.
func TestIntended(t *testing.T) {
	if len(used) == 0 {
		t.Skip("runs after the cases")
	}
	if len(Intended) > 12 {
		t.Errorf("%d intended differences, at most 12 are promised", len(Intended))
	}
	for _, i := range Intended {
		t.Logf("%s: %d", i.Name, used[i.Name])
		if used[i.Name] == 0 {
			t.Errorf("no case shows %q: take it off the list", i.Name)
		}
	}
}
