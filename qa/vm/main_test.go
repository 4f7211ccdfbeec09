// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/compose/lock"
)

// What all tests share; filled by TestMain.
var (
	image *Image
	tree  *Tree
	// soak asks for every row; without it the tests say which they leave out.
	soak = os.Getenv("HOLDFAST_SOAK") != ""
	// logs is where console logs are kept.
	logs string
)

// bootTime is how long one boot may take before a wait for it is given up. It
// is a bound for broken boots, not a claim about good ones.
const bootTime = 8 * time.Minute

// stateDisk is the size of the disks that boxes under test get.
const stateDisk = 10 << 30

func TestMain(m *testing.M) {
	sandbox.Child() // tests of upgrades bake
	if Relay(os.Args) {
		return
	}
	if err := setUp(); err != nil {
		fmt.Fprintf(os.Stderr, "vm: %v\n", err)
		os.Exit(1)
	}
	code := m.Run()
	if left := children(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "vm: processes left behind: %s\n", strings.Join(left, ", "))
		code = 1
	}
	os.Exit(code)
}

func setUp() (err error) {
	if dir := os.Getenv("HOLDFAST_IMAGE"); dir != "" {
		image, err = OpenImage(dir)
	} else {
		image, err = Newest("../../dist")
	}
	if err != nil {
		return err
	}
	if tree, err = findTree(image); err != nil {
		return err
	}
	logs = os.Getenv("HOLDFAST_VM_LOGS")
	if logs == "" {
		logs = filepath.Join("..", "..", "build", "vm-logs")
	}
	if logs, err = filepath.Abs(logs); err != nil {
		return err
	}
	fmt.Printf("image %s, root hash %.16s, console logs in %s\n", image.Dir, image.Manifest.RootHash, logs)
	return os.MkdirAll(logs, 0o755)
}

// findTree is the tree HOLDFAST_TOOLS names, else the one the image's lock
// pins, from the cache.
func findTree(img *Image) (*Tree, error) {
	if dir := os.Getenv("HOLDFAST_TOOLS"); dir != "" {
		return OpenTree(dir)
	}
	l, err := lock.Read(filepath.Join(img.Dir, builder.LockName))
	if err != nil {
		return nil, err
	}
	cache, err := builder.CacheDir()
	if err != nil {
		return nil, err
	}
	t, ok := tools.Find(filepath.Join(cache, "tools"), l.Tools)
	if !ok {
		return nil, fmt.Errorf("the tools tree of %s is not in the cache %s: `make image` makes it, HOLDFAST_TOOLS names another", img.Dir, cache)
	}
	return OpenTree(t.Dir)
}

// children are the processes this one started and that still are.
func children() []string {
	var left []string
	lists, _ := filepath.Glob("/proc/self/task/*/children") // none found is none left
	for _, name := range lists {
		data, _ := os.ReadFile(name)
		for _, pid := range strings.Fields(string(data)) {
			cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			left = append(left, pid+" "+strings.ReplaceAll(string(cmdline[:min(80, len(cmdline))]), "\x00", " "))
		}
	}
	return left
}

// box is one box: a disk and a firmware that outlive its machine.
type box struct {
	*Machine
	t    *testing.T
	ctx  context.Context
	opts Options
}

// newBox makes a disk; cert, when not empty, is the only one its firmware
// trusts.
func newBox(t *testing.T, cert string) *box {
	t.Helper()
	dir := t.TempDir()
	ctx := t.Context()
	b := &box{t: t, ctx: ctx, opts: Options{Tree: tree, SecureBoot: cert != "", Forward: []int{80}}}
	var err error
	if b.opts.Disk, err = Overlay(ctx, tree, image, dir, "disk", stateDisk); err != nil {
		t.Fatal(err)
	}
	if b.opts.Vars, err = Vars(ctx, tree, dir, "vars", cert); err != nil {
		t.Fatal(err)
	}
	return b
}

// start boots the box; it is killed at the end of the test if it still runs.
func (b *box) start() {
	b.t.Helper()
	name := strings.ReplaceAll(b.t.Name(), "/", "-")
	log, err := os.OpenFile(filepath.Join(logs, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.Machine == nil {
		err = log.Truncate(0)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.opts.Log = log
	if b.Machine, err = Start(context.WithoutCancel(b.ctx), b.opts); err != nil {
		b.t.Fatal(err)
	}
	m := b.Machine
	b.t.Cleanup(func() { m.Kill(); log.Close() })
}

// within is a context for one wait, with a cause that names it.
func (b *box) within(d time.Duration, what string) context.Context {
	ctx, cancel := context.WithTimeoutCause(b.ctx, d, errors.New(what+" took longer than "+d.String()))
	b.t.Cleanup(cancel)
	return ctx
}

// flip inverts a byte of the box's disk while it is off.
func (b *box) flip(offset int64) {
	b.t.Helper()
	if err := FlipAt(b.ctx, tree, b.opts.Disk, offset); err != nil {
		b.t.Fatal(err)
	}
}

// said waits for the console.
func (b *box) said(mark int, re string) []string {
	b.t.Helper()
	m, err := b.Console.WaitAfter(b.within(bootTime, "a boot"), mark, re)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// gaveUp is what the console says when a boot will not get to healthy by
// itself any more.
const gaveUp = `Failed to start .*holdfast-|(?s:(?:Failed to start [^\n]*docker\.service.*?){3})|(?i)kernel panic|freezing execution|emergency mode`

// complete waits until boot-complete.target of the n-th boot is reached.
func (b *box) complete(mark, n int) {
	b.t.Helper()
	said := b.said(mark, `(Reached target .*boot-complete)|`+gaveUp)
	if _, err := b.Shell.Ready(b.within(bootTime, "a boot"), n); err != nil {
		b.t.Fatal(err)
	}
	if said[1] == "" {
		b.t.Fatalf("the boot gave up (%q):\n%s", said[0], b.diagnose())
	}
}

// diagnose is what a person would look at first in a box that is not well.
func (b *box) diagnose() string {
	b.t.Helper()
	var out strings.Builder
	for _, c := range []string{
		"systemctl --failed --no-legend --plain", "holdfast status", "journalctl -b -p warning --no-pager -o short-monotonic | tail -n 40",
		"journalctl -b -u docker -u 'holdfast*' --no-pager -o cat | tail -n 60", "docker ps -a",
	} {
		text, code := b.try(c)
		fmt.Fprintf(&out, "# %s  (%d)\n%s\n", c, code, text)
	}
	return out.String()
}

// try runs a command in the box.
func (b *box) try(command string) (string, int) {
	b.t.Helper()
	out, code, err := b.Shell.Run(b.within(bootTime, "`"+command+"`"), command)
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimRight(out, "\n"), code
}

// run is try for a command that must end with 0.
func (b *box) run(command string) string {
	b.t.Helper()
	out, code := b.try(command)
	if code != 0 {
		b.t.Fatalf("`%s` ended with %d: %s", command, code, out)
	}
	return out
}

// report is `holdfast status --json`, read strictly: an unknown field is one
// that the contract does not have.
func (b *box) report() status.Report {
	b.t.Helper()
	out, _ := b.try("holdfast status --json")
	var r status.Report
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		b.t.Fatalf("status --json: %v in %s", err, out)
	}
	return r
}

// answers is true when the box's port 80 answers soon. A dead box does not
// refuse: QEMU takes the connection and nobody ever answers on it.
func (b *box) answers() bool {
	b.t.Helper()
	const soon = 5 * time.Second
	_, _, err := b.ask(soon, http.MethodGet, "/", "")
	return err == nil
}

// get asks the box's port 80.
func (b *box) get(path string) (int, string, error) {
	return b.ask(time.Minute, http.MethodGet, path, "")
}

func (b *box) ask(patience time.Duration, method, path, body string) (int, string, error) {
	ctx := b.within(patience, method+" "+path)
	req, err := http.NewRequestWithContext(ctx, method, "http://"+b.Addr(80)+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // a kept connection outlives a reboot
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(text), err
}

// off powers the box off in good order.
func (b *box) off() {
	b.t.Helper()
	if err := b.QMP.Command(b.ctx, "system_powerdown", nil, nil); err != nil {
		b.t.Fatal(err)
	}
	if err := b.WaitExit(b.within(bootTime, "powering off")); err != nil {
		b.t.Fatal(err)
	}
}
