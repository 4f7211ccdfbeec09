// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/boot"
	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/ingress"
	"github.com/holdfast/holdfast/appliance/prepare"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/appliance/upgrade"
)

// prepareUnit is the unit of the child that prepares: its weights are its own,
// and whoever comes next can end what a daemon that crashed has left.
const prepareUnit = "holdfast-prepare.service"

// SwitchData implements upgrade.Data.
func (b *upgradeBox) SwitchData(ctx context.Context, rec slot.Record) error {
	return firstboot.Switch(ctx, b.env(), rec)
}

// SettleData implements upgrade.Data.
func (b *upgradeBox) SettleData(ctx context.Context, rec slot.Record) error {
	return firstboot.Settle(ctx, b.env(), rec)
}

// MountedData implements upgrade.Data.
func (b *upgradeBox) MountedData(context.Context) (string, error) { return firstboot.Mounted(b.env()) }

func (b *upgradeBox) ingress() ingress.Env {
	return ingress.Env{Root: b.d.c.Root, Run: b.d.commands()}
}

// CloseIngress implements upgrade.Ingress. The port of metrics stays open:
// who watches the box shall see the trial.
func (b *upgradeBox) CloseIngress(ctx context.Context) error {
	p := ingress.Ports{}
	e, err := config.Load(b.d.c.Root)
	if err != nil {
		e.Config = config.Default()
	}
	if m := e.Config.Metrics; m.Listen != config.MetricsOff && m.Outside() {
		if _, port, ok := strings.Cut(m.Listen[max(0, strings.LastIndexByte(m.Listen, ':')):], ":"); ok {
			if n, err := strconv.Atoi(port); err == nil {
				p.Admin = append(p.Admin, n)
			}
		}
	}
	return ingress.Close(ctx, b.ingress(), p)
}

// OpenIngress implements upgrade.Ingress.
func (b *upgradeBox) OpenIngress(ctx context.Context) error { return ingress.Open(ctx, b.ingress()) }

// Room implements upgrade.Facts.
func (b *upgradeBox) Room(ctx context.Context) (r upgrade.Room, err error) {
	node, err := b.d.node(ctx, true)
	if err != nil {
		return r, err
	}
	r.Memory, r.CPUs, r.Data = node.Memory, int64(node.CPUs*1000), node.Data
	rec, err := b.Record()
	if err != nil {
		return r, err
	}
	if r.State, err = freeBytes(b.d.c.State); err != nil {
		return r, err
	}
	if rec.Kept != nil && rec.Kept.Digest != "" && rec.Kept.Digest != rec.Committed.Digest {
		r.KeptState = folderBytes(releaseDir(b.d.c.State, rec.Kept.Digest))
	}
	pool, err := firstboot.Room(ctx, b.env(), rec)
	if err != nil {
		return r, err
	}
	r.Pool, r.KeptPool = pool.Free, pool.Kept
	b.d.update(nothing(func() {
		if b.d.budget != nil {
			for _, v := range b.d.budget.Volumes {
				r.Snapshot += v.Bytes
			}
		}
	}))
	if dev, err := b.slotDevice(other(rec.Committed.Slot)); err == nil {
		r.Slot, _ = deviceBytes(b.path(dev))
	}
	err = b.esp(ctx, func(e *boot.ESP) (err error) {
		r.ESP, err = e.Free()
		return err
	})
	return r, err
}

func other(slot string) string {
	if slot == "A" {
		return "B"
	}
	return "A"
}

func (b *upgradeBox) path(name string) string { return filepath.Join("/", b.d.c.Root, name) }

// slotDevice is the device of a slot, "/dev/vda3".
func (b *upgradeBox) slotDevice(letter string) (string, error) {
	r, err := b.Root()
	if err != nil {
		return "", err
	}
	label := "root-" + strings.ToLower(letter)
	part, err := r.Sibling(b.d.c.Root, label)
	if err == nil && part == "" {
		err = fmt.Errorf("disk %s has no partition labelled %s", r.Disk, label)
	}
	return "/dev/" + part, err
}

func deviceBytes(name string) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}

// request is what the child is to do.
func (b *upgradeBox) request(ctx context.Context, c upgrade.Candidate, letter string) (prepare.Request, error) {
	rec, err := b.Record()
	if err != nil {
		return prepare.Request{}, err
	}
	q := prepare.Request{Ref: c.Ref, Digest: c.Digest, ManifestSize: c.Size, State: b.d.c.State,
		Limit: b.Settings().Limit, RunningDigest: rec.Committed.Digest, Reserve: 64 << 20}
	if dir := b.factory(); dir != "" {
		q.Layouts = append(q.Layouts, dir)
	}
	if root := b.d.engineIs().Root; root != "" {
		// Blobs of images that the engine holds need not be fetched again.
		q.Contents = append(q.Contents, filepath.Join(filepath.Dir(root), "containerd/io.containerd.content.v1.content"))
	}
	if e, err := config.Load(b.d.c.Root); err == nil {
		if p := e.Config.Proxy; p.HTTP != "" || p.HTTPS != "" {
			q.Proxy = &prepare.Proxy{HTTP: p.HTTP, HTTPS: p.HTTPS, NoProxy: p.NoProxy}
		}
	}
	if letter == "" {
		return q, nil
	}
	r, err := b.Root()
	if err != nil {
		return q, err
	}
	if letter == r.Letter || letter == rec.Committed.Slot {
		return q, fmt.Errorf("slot %s holds the committed root; it is not written to", letter)
	}
	target, err := b.slotDevice(letter)
	if err != nil {
		return q, err
	}
	q.Target, q.Running = b.path(target), b.path("/dev/"+r.Partition)
	err = b.esp(ctx, func(e *boot.ESP) error {
		if q.ESPFree, err = e.Free(); err != nil {
			return err
		}
		if rec.Committed.Digest != "" {
			return nil
		}
		// The factory's kernel image is nowhere but on the ESP.
		uki := filepath.Join(b.d.c.State, "upgrade", "running.efi")
		number := rec.Committed.UKI
		if number == 0 {
			number = rec.Committed.Number
		}
		if err := copyUKI(e, number, uki); err == nil {
			q.UKIs = append(q.UKIs, uki)
		}
		return nil // without it more is fetched
	})
	return q, err
}

func copyUKI(e *boot.ESP, number int, to string) error {
	r, size, err := e.Image(number, boot.Linux)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.NewSectionReader(r, 0, size))
	return errors.Join(err, f.Close())
}

// Prepare implements upgrade.Releases.
func (b *upgradeBox) Prepare(ctx context.Context, c upgrade.Candidate, letter string, report func(upgrade.Progress)) (upgrade.Prepared, error) {
	var out upgrade.Prepared
	q, err := b.request(ctx, c, letter)
	if err != nil {
		return out, err
	}
	if q.Ref == "usb:" {
		dir, release, err := b.mountStick(ctx)
		if err != nil {
			return out, &upgrade.Unreachable{Ref: q.Ref, Err: err}
		}
		defer release()
		q.Stick = dir
	}
	told := ""
	res, err := b.child(ctx, q, func(p prepare.Progress) {
		step := p.Step
		if step != told {
			told = step
			b.d.say.line("upgrade: %s, %d of %d MB are here", step, mb(p.Done), mb(p.Total))
		}
		if p.Waiting != "" {
			step += ", waiting: " + p.Waiting
		}
		report(upgrade.Progress{Step: step, Done: p.Done, Total: p.Total, Reused: p.Reused, Rate: p.Rate, Left: p.Left})
	})
	if err != nil {
		return out, unprepared(q.Ref, err)
	}
	out.Fetched, out.Reused = res.Fetched, res.Reused
	if letter != "" {
		// After the slot is whole: its kernel image finds it by this id.
		root, err := b.Root()
		if err == nil {
			err = root.NameSlot(b.d.c.Root, letter, c.Description.OS.RootHash)
		}
		if err != nil {
			return out, fmt.Errorf("slot %s was written and cannot be named: %w", letter, err)
		}
	}
	if err := b.vouch(c.Digest); err != nil {
		return out, err
	}
	return out, b.preload(ctx, c, report)
}

// unprepared puts a failure of the child into the machine's words.
func unprepared(ref string, err error) error {
	var f *prepare.Failure
	if !errors.As(err, &f) {
		return err
	}
	switch f.Code {
	case prepare.CodeRefused:
		return &upgrade.Refused{Code: upgrade.CodeTrust, Why: f.Text, Remedy: "nothing that runs was changed; take the release from the vendor's own source"}
	case prepare.CodeNoRoom:
		return &upgrade.Refused{Code: upgrade.CodeStateRoom, Why: f.Text, Remedy: "give the box a larger disk, or remove what fills the state volume; then upgrade again"}
	case prepare.CodeSource, prepare.CodeUnreachable:
		return &upgrade.Unreachable{Ref: ref, Err: f}
	}
	return f
}

// child runs this program once more, at idle weight where systemd is there.
func (b *upgradeBox) child(ctx context.Context, q prepare.Request, report func(prepare.Progress)) (prepare.Result, error) {
	in, err := json.Marshal(q)
	if err != nil {
		return prepare.Result{}, err
	}
	program := b.u.Program
	if program == "" {
		if program, err = os.Executable(); err != nil {
			return prepare.Result{}, err
		}
	}
	argv := []string{program, "upgrade-prepare"}
	if b.d.c.Root == "" {
		// What a daemon that crashed has left holds the lock.
		b.d.commands().Run(ctx, "systemctl", "stop", prepareUnit)
		argv = append([]string{"systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--unit", prepareUnit,
			"-p", "CPUWeight=idle", "-p", "IOWeight=1", "-p", "OOMScoreAdjust=500", "-p", "Description=Fetch and write a release"}, argv...)
		defer func() {
			if ctx.Err() != nil {
				late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
				defer cancel()
				b.d.commands().Run(late, "systemctl", "stop", prepareUnit)
			}
		}()
	}
	var res prepare.Result
	err = firstboot.Commands{}.Pipe(ctx, in, func(r io.Reader) (err error) {
		res, err = prepare.Follow(r, report)
		return err
	}, argv...)
	if ctx.Err() != nil {
		return res, context.Cause(ctx)
	}
	return res, err
}

// preload lets the engine that runs load the candidate's images while the old
// stack serves. One of another engine is loaded by that at its first start.
func (b *upgradeBox) preload(ctx context.Context, c upgrade.Candidate, report func(upgrade.Progress)) error {
	if e := c.Description.Engine; e != "" && e != b.engine() {
		return nil
	}
	rel, err := b.installed(c.Digest)
	if err != nil {
		return err
	}
	images, err := imagesOf(c.Description)
	if err != nil {
		return err
	}
	return supervise.LoadImages(ctx, b.d.c.Engine, Installed{State: b.d.c.State, Factory: b.factory()}.source(rel), images, func(p supervise.Progress) {
		report(upgrade.Progress{Step: "loading " + p.Image, Done: p.Done, Total: p.Total})
	})
}

// engine names the engine of the running root, "" where that is not known.
func (b *upgradeBox) engine() string {
	text, err := os.ReadFile(b.path(b.u.Engine))
	if err != nil || len(text) > 256 {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// nothing changes the report; it only works under its lock.
func nothing(f func()) func(*status.Report) bool {
	return func(*status.Report) bool {
		f()
		return false
	}
}
