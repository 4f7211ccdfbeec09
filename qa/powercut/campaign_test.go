// SPDX-License-Identifier: Apache-2.0

//go:build vm

package powercut

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/gpt"
	"github.com/holdfast/holdfast/qa/vm"
)

var soak = os.Getenv("HOLDFAST_SOAK") != ""

// bootTime bounds a boot that will not end well.
const bootTime = 8 * time.Minute

func TestMain(m *testing.M) {
	if vm.Relay(os.Args) {
		return
	}
	os.Exit(m.Run())
}

// recording is what qa/vm's TestRecordUpgrade keeps, as far as it is needed.
type recording struct {
	Disk string                 `json:"disk"`
	Log  string                 `json:"log"`
	Vars string                 `json:"vars"`
	Rows []status.UpgradeResult `json:"rows"`
}

// TestCampaign cuts the power of a recorded run at many points, looks at every
// disk and boots some of them. HOLDFAST_RECORDING is the folder of the run that
// qa/vm's TestRecordUpgrade recorded; without it a second boot of the image is
// recorded here, in which no upgrade happens.
func TestCampaign(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("volumes are mounted to look at them, which needs root: run as root")
	}
	img, tree := opened(t)
	dir := t.TempDir()
	var r recording
	if from := os.Getenv("HOLDFAST_RECORDING"); from != "" {
		text, err := os.ReadFile(filepath.Join(from, "recording.json"))
		if err != nil {
			t.Fatalf("%v: record a run with go test -tags vm -run TestRecordUpgrade ./qa/vm", err)
		}
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatal(err)
		}
	} else {
		t.Log("HOLDFAST_RECORDING is not set: a second boot is recorded, without an upgrade")
		r = recordBoot(t, img, tree, dir)
	}
	base := filepath.Join(dir, "base.raw")
	if _, err := (Programs{tree.Dir}).Run(t.Context(), "qemu-img", "convert", "-O", "raw", r.Disk, base); err != nil {
		t.Fatal(err)
	}
	c := Campaign{Base: base, Log: r.Log, Dir: dir, Programs: Programs{ownPrograms(t, base), tree.Dir}, Cuts: 24, Seed: 1}
	boots := 2
	if soak {
		c.Cuts, boots = 1000, 25
	}
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		c.Memory = "/dev/shm"
	}
	seesDamage(t, c, base)
	booted := 0
	c.Each = func(n int, cut Cut, disk *os.File, o Outcome) error {
		// The first and the last are dull: the middle of each share is booted.
		if booted == boots || n != (2*booted+1)*c.Cuts/(2*boots) {
			return nil
		}
		booted++
		t.Logf("booting %s: %s", cut, o)
		return bootCut(t, tree, r.Vars, disk.Name(), filepath.Join(dir, "cut"))
	}
	res, err := c.Run(t.Context())
	if res != nil {
		t.Logf("\n%s", res)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Wrong) > 0 {
		t.Errorf("%d of %d disks are neither old nor new", len(res.Wrong), res.Cuts)
	}
	if booted != boots {
		t.Errorf("%d of %d cuts were booted", booted, boots)
	}
}

func opened(t *testing.T) (*vm.Image, *vm.Tree) {
	t.Helper()
	img, err := func() (*vm.Image, error) {
		if dir := os.Getenv("HOLDFAST_IMAGE"); dir != "" {
			return vm.OpenImage(dir)
		}
		return vm.Newest("../../dist")
	}()
	if err != nil {
		t.Fatal(err)
	}
	dir := os.Getenv("HOLDFAST_TOOLS")
	if dir == "" {
		l, err := lock.Read(filepath.Join(img.Dir, builder.LockName))
		if err != nil {
			t.Fatal(err)
		}
		cache, err := builder.CacheDir()
		if err != nil {
			t.Fatal(err)
		}
		found, ok := tools.Find(filepath.Join(cache, "tools"), l.Tools)
		if !ok {
			t.Fatal("the tools tree is not in the cache: `make image` makes it, HOLDFAST_TOOLS names another")
		}
		dir = found.Dir
	}
	tree, err := vm.OpenTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	return img, tree
}

// ownPrograms is the box's own root, for thin_check, thin_dump and xfs_repair
// of the versions that the box has.
func ownPrograms(t *testing.T, base string) string {
	t.Helper()
	f, err := os.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := sizeOf(base)
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Decode(f, size)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := table.Part("root-a")
	if !ok {
		t.Fatal("the disk has no slot A")
	}
	dir := t.TempDir()
	unmount, err := Mount(base, p.Offset, p.Size, dir, "squashfs", "", true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmount(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// start boots a machine and waits until it is up.
func start(t *testing.T, o vm.Options, log string) (*vm.Machine, error) {
	t.Helper()
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { out.Close() })
	o.Log = out
	m, err := vm.Start(context.WithoutCancel(t.Context()), o)
	if err != nil {
		return nil, err
	}
	t.Cleanup(m.Kill)
	ctx, cancel := context.WithTimeoutCause(t.Context(), bootTime, errors.New("the boot took longer than "+bootTime.String()))
	defer cancel()
	said, err := m.Console.WaitAfter(ctx, 0, `(Reached target .*boot-complete)|(?i)kernel panic|emergency mode|Failed to start .*holdfast-`)
	if err == nil && said[1] == "" {
		err = fmt.Errorf("the boot gave up: %q; see %s", said[0], log)
	}
	if err == nil {
		_, err = m.Shell.Ready(ctx, 1)
	}
	return m, err
}

func off(t *testing.T, m *vm.Machine) error {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), bootTime, errors.New("powering off took longer than "+bootTime.String()))
	defer cancel()
	if err := m.QMP.Command(ctx, "system_powerdown", nil, nil); err != nil {
		return err
	}
	return m.WaitExit(ctx)
}

// logs is the folder of console logs.
func logs(t *testing.T, name string) string {
	t.Helper()
	dir := cmp.Or(os.Getenv("HOLDFAST_VM_LOGS"), filepath.Join("..", "..", "build", "vm-logs"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+"-"+name+".log")
}

// recordBoot records the second boot of an image.
func recordBoot(t *testing.T, img *vm.Image, tree *vm.Tree, dir string) recording {
	t.Helper()
	const size = 10 << 30
	first, err := vm.Overlay(t.Context(), tree, img, dir, "first", size)
	if err != nil {
		t.Fatal(err)
	}
	vars, err := vm.Vars(t.Context(), tree, dir, "vars", "")
	if err != nil {
		t.Fatal(err)
	}
	m, err := start(t, vm.Options{Tree: tree, Disk: first, Vars: vars}, logs(t, "first"))
	if err == nil {
		err = off(t, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	second, err := vm.OverlayOn(t.Context(), tree, first, "qcow2", dir, "second", 0)
	if err != nil {
		t.Fatal(err)
	}
	r := recording{Disk: first, Log: filepath.Join(dir, "log"), Vars: vars}
	if err := os.WriteFile(r.Log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err = start(t, vm.Options{Tree: tree, Disk: second, Vars: vars, Record: r.Log}, logs(t, "recorded")); err == nil {
		err = off(t, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// bootCut boots a copy of a disk: it must get to healthy by itself, in a
// generation that is committed or becomes so or is taken back.
func bootCut(t *testing.T, tree *vm.Tree, vars, disk, to string) error {
	t.Helper()
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(to)
	raw, own := filepath.Join(to, "disk.raw"), filepath.Join(to, "vars.fd")
	if err := CopySparse(raw, disk); err != nil {
		return err
	}
	if err := CopySparse(own, vars); err != nil {
		return err
	}
	over, err := vm.OverlayOn(t.Context(), tree, raw, "raw", to, "disk", 0)
	if err != nil {
		return err
	}
	m, err := start(t, vm.Options{Tree: tree, Disk: over, Vars: own}, logs(t, "cut"))
	if err != nil {
		return fmt.Errorf("a disk after a power cut does not boot: %w", err)
	}
	defer m.Kill()
	ctx, cancel := context.WithTimeoutCause(t.Context(), bootTime, errors.New("the box was not healthy within "+bootTime.String()))
	defer cancel()
	out, code, err := m.Shell.Run(ctx, "holdfast status --json")
	if err != nil {
		return err
	}
	var report status.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return fmt.Errorf("status --json ended with %d: %w in %s", code, err, out)
	}
	t.Logf("it came up: %s", firstLine(m, ctx, "holdfast status"))
	return off(t, m)
}

func firstLine(m *vm.Machine, ctx context.Context, command string) string {
	out, _, err := m.Shell.Run(ctx, command)
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(out, "\n")
	return line
}
