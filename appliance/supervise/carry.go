// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/images/durable"
)

// Carried is what belongs to the data and not to the box: it lies beside the
// data, so that a snapshot has it as it was, and going back to older data goes
// back to it too. An engine that has never seen the stack learns from it.
type Carried struct {
	// Format is 1.
	Format int `json:"format"`
	// Volumes are the anonymous volumes of each service by their targets: what
	// an engine's container is the only one to know.
	Volumes map[string]map[string]string `json:"volumes,omitempty"`
	// Completed says of each one-shot for which generation it has run.
	Completed map[string]Completion `json:"completed,omitempty"`
}

// carriedMax bounds the file in bytes.
const carriedMax = 1 << 20

// LoadCarried reads what lies beside the data; nothing where there is none.
func LoadCarried(path string) (*Carried, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, carriedMax+1))
	if err != nil {
		return nil, err
	}
	c := &Carried{}
	if len(b) > carriedMax {
		return nil, fmt.Errorf("%s: larger than %d bytes; restore it from a backup, or remove it: one-shot services then run again and anonymous volumes begin empty", path, carriedMax)
	}
	if err := json.Unmarshal(b, c); err != nil || c.Format != 1 {
		return nil, fmt.Errorf("%s can't be read (format %d, %w); restore it from a backup, or remove it: one-shot services then run again and anonymous volumes begin empty", path, c.Format, err)
	}
	return c, nil
}

// Save makes it durable.
func (c Carried) Save(path string) error {
	c.Format = 1
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(b, '\n'), 0o600)
}

// carried is what the data takes along as things are now. A service without a
// container keeps what was known.
func (s *Supervisor) carried(o Observed) Carried {
	c := Carried{Format: 1}
	for i := range s.c.Desired.Services {
		svc := &s.c.Desired.Services[i]
		p := s.h.Past[svc.Name]
		if p.Completed != nil {
			c.Completed = with1(c.Completed, svc.Name, *p.Completed)
		}
		volumes := p.Inherit
		if box, _ := o.pick(svc); box != nil {
			volumes = anonymous(s.c.Desired, box)
		} else if volumes == nil && s.told != nil {
			volumes = s.told.Volumes[svc.Name]
		}
		if len(volumes) > 0 {
			c.Volumes = with1(c.Volumes, svc.Name, volumes)
		}
	}
	return c
}

// carry tells what the data takes along where that changed.
func (s *Supervisor) carry(o Observed) {
	if s.c.Carry == nil {
		return
	}
	c := s.carried(o)
	if s.told != nil && reflect.DeepEqual(*s.told, c) {
		return
	}
	if err := s.c.Carry(c); err != nil {
		s.write(Entry{Act: "seen", Because: "what the data takes along could not be kept", Error: err.Error()})
		return // the next round tries again
	}
	s.told = &c
}

// Clear removes every container of another generation, and where anew is true
// every one of ours, before the first of this one is made: old and new never
// coexist, not even stopped. Their anonymous volumes are handed on, and what
// the data took along (nil for nothing) counts more than the memory of the box.
//
// The volumes are in the memory on disk before the first container goes: a cut
// in between would lose the only trace of them. Called again after a cut it
// goes on.
func Clear(ctx context.Context, e Engine, d *Desired, j *Journal, data *Carried, anew bool) error {
	all, err := ours(ctx, e, d.Project)
	if err != nil {
		return err
	}
	h, err := j.History()
	if err != nil {
		h = NewHistory() // New reports it
	}
	h = h.clone()
	var away []engine.Container
	kept := map[string]bool{}
	for _, c := range all {
		if anew || c.Labels[labelGeneration] != fmt.Sprint(d.Generation) {
			away = append(away, c)
		} else {
			kept[c.Labels[engine.ServiceLabel]] = true
		}
	}
	for _, c := range away {
		name := c.Labels[engine.ServiceLabel]
		if !isMain(c) || kept[name] || c.Labels[engine.ProjectLabel] != d.Project {
			continue
		}
		p := h.Past[name]
		// Failures of what goes say nothing about what comes.
		h.Past[name] = Past{Stopped: p.Stopped, Completed: p.Completed, Inherit: merged(p.Inherit, anonymous(d, &c))}
	}
	if data != nil {
		h = h.from(d, *data, kept)
	}
	if err := j.Save(h); err != nil {
		return fmt.Errorf("the supervisor's memory cannot be kept: %w", err)
	}
	for _, c := range slices.Backward(away) {
		if c.Up() || c.State == "restarting" {
			if err := e.Stop(ctx, c.ID, clearGrace(d, c)); err != nil && !errors.Is(err, engine.ErrNotFound) {
				return fmt.Errorf("container %s of another generation does not end: %w", c.Name, err)
			}
		}
		if err := e.Remove(ctx, c.ID); err != nil && !errors.Is(err, engine.ErrNotFound) {
			return fmt.Errorf("container %s of another generation cannot be removed: %w", c.Name, err)
		}
	}
	return nil
}

// anonymousForm is how engines name volumes that nobody named.
var anonymousForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// clearAllGrace is how long a container that nobody supervises any more may
// take to end.
const clearAllGrace = time.Minute

// ClearAll stops and removes every container that a supervisor has made, of
// whatever stack, for another generation to begin without any. Which volumes
// they had is in the memory first, as with Clear. No supervisor may run.
func ClearAll(ctx context.Context, e Engine, j *Journal) error {
	all, err := ours(ctx, e, "")
	if err != nil || len(all) == 0 {
		return err
	}
	h, err := j.History()
	if err != nil {
		h = NewHistory()
	}
	h = h.clone()
	for _, c := range all {
		if !isMain(c) {
			continue
		}
		name := c.Labels[engine.ServiceLabel]
		p := h.Past[name]
		volumes := maps.Clone(c.Volumes)
		maps.DeleteFunc(volumes, func(_, v string) bool { return !anonymousForm.MatchString(v) })
		h.Past[name] = Past{Stopped: p.Stopped, Completed: p.Completed, Inherit: merged(p.Inherit, volumes)}
	}
	if err := j.Save(h); err != nil {
		return fmt.Errorf("the supervisor's memory cannot be kept: %w", err)
	}
	for _, c := range slices.Backward(all) {
		if c.Up() || c.State == "restarting" {
			if err := e.Stop(ctx, c.ID, clearAllGrace); err != nil && !errors.Is(err, engine.ErrNotFound) {
				return fmt.Errorf("container %s does not end: %w", c.Name, err)
			}
		}
		if err := e.Remove(ctx, c.ID); err != nil && !errors.Is(err, engine.ErrNotFound) {
			return fmt.Errorf("container %s cannot be removed: %w", c.Name, err)
		}
	}
	return nil
}

// ours are the project's containers, and those that a supervisor made for
// another: a release may have renamed its stack.
func ours(ctx context.Context, e Engine, project string) ([]engine.Container, error) {
	var all []engine.Container
	if project != "" {
		var err error
		if all, err = e.Containers(ctx, project); err != nil {
			return nil, err
		}
	}
	holders, err := e.Holders(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{"": true, project: true}
	for _, o := range holders {
		if seen[o.Project] {
			continue
		}
		seen[o.Project] = true
		others, err := e.Containers(ctx, o.Project)
		if err != nil {
			return nil, err
		}
		for _, c := range others {
			if c.Labels[labelGeneration] != "" {
				all = append(all, c)
			}
		}
	}
	return all, nil
}

// from takes what the data took along into the memory.
func (h History) from(d *Desired, c Carried, kept map[string]bool) History {
	for i := range d.Services {
		name := d.Services[i].Name
		p := h.Past[name]
		done, ok := c.Completed[name]
		switch {
		case ok:
			p.Completed = &done
		case !kept[name] || p.Completed == nil || p.Completed.Generation != d.Generation:
			p.Completed = nil // else the cut came between the two writes
		}
		if p.Completed == nil && p.Ended == endDone {
			p.Ended = endNone
		}
		if v := c.Volumes[name]; len(v) > 0 && !kept[name] {
			p.Inherit = maps.Clone(v)
		}
		h.Past[name] = p
	}
	return h
}

func merged(a, b map[string]string) map[string]string {
	if a == nil {
		return b
	}
	a = maps.Clone(a)
	maps.Copy(a, b)
	return a
}

// clearGrace is how long a container of another generation may take to end.
func clearGrace(d *Desired, c engine.Container) time.Duration {
	if s := d.service(c.Labels[engine.ServiceLabel]); s != nil && s.Grace > 0 {
		return s.Grace
	}
	return 10 * time.Second
}
