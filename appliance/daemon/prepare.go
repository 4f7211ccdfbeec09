// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/status/facts"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/stack"
)

// Found is a stack that may run, with where its images come from.
type Found struct {
	Stack   *stack.Stack
	Release status.Release
	Images  []supervise.Image
	// Source of the images that the engine lacks; nil where there is none.
	Source supervise.Source
	// ReadableFrom is the oldest version of the release that can read the
	// data it leaves behind; "" where it is no release.
	ReadableFrom string
	// Conditions to show although the stack may run.
	Conditions []status.Condition
	// Description of the release, verified; nil where it is none.
	Description *release.Description
}

// Finder finds the stack. An error holds the stack.
type Finder interface {
	Find(ctx context.Context) (*Found, error)
}

// prepare does all that comes before supervision.
func (d *Daemon) prepare(ctx context.Context, j *supervise.Journal) (*supervise.Desired, error) {
	t, err := d.chosen()
	if err != nil {
		return nil, err
	}
	d.box = t.box
	find := d.c.Find
	if t.gen.Digest != "" {
		if d.c.Installed == nil {
			return nil, held("release-missing", "boot the committed image, or reinstall the box", fmt.Errorf("the release %s is committed and this daemon knows no installed releases", t.gen.Digest))
		}
		find = d.c.Installed(t.gen.Digest)
	}
	f, err := find.Find(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.running = f
	d.mu.Unlock()
	d.rootCond = append(d.rootCond, f.Conditions...)
	if t.box && f.ReadableFrom != "" {
		if err := d.acceptData(ctx, f); err != nil {
			return nil, err
		}
	}
	d.named(t, f)
	d.announce(t.gen.Number, f)
	said := ""
	for {
		if err := d.awaitEngine(ctx); err != nil {
			return nil, err
		}
		d.meet(ctx)
		d.measuring(f.Stack)
		b, err := d.admit(ctx, f.Stack, t.box)
		if err != nil {
			return nil, err
		}
		err = d.load(ctx, f)
		if err == nil {
			desired, err := d.desire(f, t.gen.Number, b)
			if err != nil {
				return nil, err
			}
			err = d.clear(ctx, t, desired, j)
			if err == nil {
				return desired, nil
			}
			if !errors.Is(err, engine.ErrUnreachable) || ctx.Err() != nil {
				return nil, err
			}
			d.say.line("the engine went away while containers of another generation were removed: %v", err)
			continue
		}
		if why := refused(err); why != nil {
			if err := d.holdAndWait(ctx, why, said); err != nil {
				return nil, err
			}
			said = why.Error()
			continue
		}
		if !errors.Is(err, engine.ErrUnreachable) || ctx.Err() != nil {
			return nil, err
		}
		d.say.line("the engine went away while images were loaded: %v", err)
	}
}

// announce shows what is about to run.
func (d *Daemon) announce(gen int, f *Found) {
	d.say.line("release %s, %d services", strings.TrimSpace(f.Release.Name+" "+f.Release.Version), len(f.Stack.Services))
	now := time.Now()
	var services []status.Service
	for _, name := range f.Stack.Services {
		services = append(services, status.Service{Name: name, Image: f.Stack.Project.Services[name].Image,
			State: "waiting", Health: "none", Since: now, Reason: "the images are being loaded"})
	}
	d.update(func(r *status.Report) bool {
		os := r.Release.OS
		r.Release, r.Generation, r.Services = f.Release, gen, orNone(services)
		if r.Release.OS == "" {
			r.Release.OS = os
		}
		d.ports, d.mounted = portsOf(f.Stack), mountedVolumes(f.Stack)
		r.Allowances = allowances(f.Stack)
		r.URLs = urls(r.Addresses, d.ports)
		return true
	})
}

// awaitEngine waits until the engine answers, and says so while it does not.
func (d *Daemon) awaitEngine(ctx context.Context) error {
	wait := 100 * time.Millisecond
	said := false
	for {
		err := d.c.Engine.Ping(ctx)
		if err == nil {
			if said { // other conditions may stand, of images that are refused
				d.setConditions(nil)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, engine.ErrUnreachable) {
			return held("engine-unfit", "install the engine the box came with", err)
		}
		if wait > time.Second {
			said = true
			d.setConditions([]status.Condition{{Code: "engine-unreachable", Severity: "critical",
				Text: err.Error(), Remedy: "systemctl status docker; journalctl -u docker"}})
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		wait = min(2*wait, 5*time.Second)
	}
}

func (d *Daemon) setConditions(c []status.Condition) {
	d.update(func(r *status.Report) bool {
		d.setStackConditions(r, append(slices.Clone(d.rootCond), c...))
		return true
	})
}

// load makes the engine resolve every image.
func (d *Daemon) load(ctx context.Context, f *Found) error {
	src := f.Source
	if src == nil {
		src = noSource{}
	}
	err := supervise.LoadImages(ctx, d.c.Engine, src, f.Images, d.imagesProgress())
	var corrupt *release.CorruptError
	switch {
	case errors.As(err, &corrupt):
		return held("factory-image-corrupt",
			"write the factory partition again from the disk image of this release, then reboot; nothing of the stack was started",
			fmt.Errorf("image %s on the factory partition is damaged: %w", corrupt.Image, corrupt))
	case errors.Is(err, engine.ErrUnreachable), refused(err) != nil:
		return err
	case err != nil:
		return held("images-not-loaded", "see the text, mend the cause, then systemctl restart holdfast", err)
	}
	if d.timings.ImagesLoaded == 0 {
		d.timings.ImagesLoaded = facts.Uptime()
		d.keepTimings()
	}
	return nil
}

// desire makes the secrets and files and translates the stack.
func (d *Daemon) desire(f *Found, gen int, b *budget.Budget) (*supervise.Desired, error) {
	var want []supervise.Generate
	for _, s := range f.Stack.Secrets {
		want = append(want, supervise.Generate{Name: s.Name, Length: s.Length})
	}
	used, err := hasVolumes(filepath.Join(d.c.Data, "volumes"))
	if err != nil {
		return nil, held("secrets-not-made", "see the text, mend the cause, then systemctl restart holdfast", err)
	}
	secrets, err := supervise.Secrets(supervise.SecretsDir{Path: filepath.Join(d.c.Data, "secrets"), Used: used}, want, nil)
	var lost *supervise.LostSecretError
	switch {
	case errors.As(err, &lost):
		return nil, held("secret-lost", "restore "+lost.Path+" from a backup, then systemctl restart holdfast; without one, reset the box to its factory state, which deletes all data", err)
	case err != nil:
		return nil, held("secrets-not-made", "make room on the data volume, then systemctl restart holdfast", err)
	}
	desired, err := d.translated(f, gen, b, secrets)
	if err != nil {
		return nil, held("stack-invalid", "bake a release whose stack a box can honour", err)
	}
	if err := supervise.WriteFiles(desired.Files, nil); err != nil {
		return nil, held("files-not-written", "make room on the state volume, then systemctl restart holdfast", err)
	}
	return desired, nil
}

// hasVolumes says whether Docker keeps volumes there: folders, beside files of
// its own. Secrets are made before the first of them.
func hasVolumes(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return slices.ContainsFunc(entries, fs.DirEntry.IsDir), nil
}
