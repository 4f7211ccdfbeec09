// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/budget"
)

// ended says that what was to be changed is gone.
func ended(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// nearlyFull and full are the parts of a quota at which an admin is told.
const (
	nearlyFull = 0.90
	full       = 0.99
)

// counted is a volume that is a project.
type counted struct {
	name string
	path string
	u    quota.Usage
	// bytes is its budget, 0 for none.
	bytes int64
}

// quotas makes each volume a project of its own, with its budget as the limit.
func (e *Enforcer) quotas(ctx context.Context) []status.Condition {
	var list []status.Condition
	var observed []string
	var errs []error
	var volumes []counted
	for _, v := range e.volumes {
		u, err := e.volume(ctx, v)
		c := counted{name: v.Name, path: v.Path, u: u, bytes: budgetOf(e.b, v.Name)}
		switch {
		case err == nil:
			volumes = append(volumes, c)
		case errors.Is(err, quota.ErrNone):
			if c.bytes > 0 {
				observed = append(observed, v.Name)
			}
		case !ended(err): // else removed meanwhile, or not made yet
			errs = append(errs, fmt.Errorf("volume %s: %w", v.Name, err))
		}
	}
	rest, shared := e.rest(volumes)
	for _, c := range volumes {
		want := c.bytes / 512 * 512
		if want == 0 && shared {
			want = restLimit(c.u.Used, rest)
		}
		if e.b != nil && want != c.u.Limit {
			if err := e.c.Quotas.SetLimit(c.path, c.u.Project, want); err != nil {
				errs = append(errs, fmt.Errorf("volume %s: %w", c.name, err))
				continue
			}
			c.u.Limit = want
		}
		if c.u.Limit > 0 && float64(c.u.Used) >= nearlyFull*float64(c.u.Limit) {
			list = append(list, fullness("volume", c.name, c.u))
		}
	}
	if len(observed) > 0 {
		list = append(list, status.Condition{
			Code: "disk-budget-observed", Severity: "info",
			Text:   fmt.Sprintf("disk budgets of %s are observed, not enforced: only a Holdfast box has project quotas to hold them with", strings.Join(observed, ", ")),
			Remedy: "nothing on a host of your own; on a box look at mount | grep prjquota, then reboot",
		})
	}
	if err := errors.Join(errs...); err != nil {
		list = append(list, failed("disk budgets", err))
	}
	return list
}

// rest is what volumes without a budget may still take of the data volume
// together: what is free, less what the others have not used of their budgets
// and less the reserve that no volume may claim, of which the ballast is part.
// It is known only where the data volume is ours.
func (e *Enforcer) rest(volumes []counted) (bytes int64, known bool) {
	if e.c.Data == "" {
		return 0, false
	}
	s, err := e.space(e.c.Data)
	if err != nil {
		return 0, false
	}
	bytes = s.Free - max(0, budget.DataReserve(s.Total)-ballastSize(s.Total))
	for _, c := range volumes {
		if c.bytes > 0 {
			bytes -= max(0, c.bytes-c.u.Used)
		}
	}
	return max(0, bytes), true
}

// restLimit is the limit of a volume without a budget: what it has and what is
// left, in steps, so that not each written page of another one moves it.
func restLimit(used, rest int64) int64 {
	const step = 16 * mib
	return max((used+rest)/step*step, mib)
}

func fullness(kind, name string, u quota.Usage) status.Condition {
	c := status.Condition{
		Code: kind + "-nearly-full", Severity: "warning",
		Text:   fmt.Sprintf("%s %s uses %s of the %s it may", kind, name, size(u.Used), size(u.Limit)),
		Remedy: "remove what is not needed in it, give it a larger budget in the stack, or enlarge the disk and reboot",
	}
	if float64(u.Used) >= full*float64(u.Limit) {
		c.Code, c.Severity = kind+"-full", "critical"
	}
	return c
}

func budgetOf(b *budget.Budget, volume string) int64 {
	if b != nil {
		for _, v := range b.Volumes {
			if v.Name == volume {
				return v.Bytes
			}
		}
	}
	return 0
}

// volume makes one volume a project, and gives its use.
func (e *Enforcer) volume(ctx context.Context, v Volume) (quota.Usage, error) {
	has, inherits, err := e.c.Quotas.Project(v.Path)
	if err != nil {
		return quota.Usage{}, err
	}
	// Asked first: a file system that knows projects may still count none.
	if _, err := e.c.Quotas.OfProject(v.Path, max(has, firstProject)); err != nil {
		return quota.Usage{}, err
	}
	if e.ids == nil {
		if e.ids, err = readIDs(e.c.Kept); err != nil {
			return quota.Usage{}, err
		}
	}
	id, changed, err := e.ids.give(v.Path, has, func(id uint32) (bool, error) {
		u, err := e.c.Quotas.OfProject(v.Path, id)
		return u.Files > 0 || u.Used > 0, err
	})
	if err != nil {
		return quota.Usage{}, err
	}
	if changed {
		// Before the folder has it: after a cut between the two the folder
		// gets the number that is written down.
		if err := e.ids.write(e.c.Kept); err != nil {
			delete(e.ids.Volumes, v.Path)
			return quota.Usage{}, err
		}
	}
	if has != id || !inherits {
		if err := e.c.Quotas.Adopt(ctx, v.Path, id); err != nil {
			return quota.Usage{}, err
		}
	}
	return e.c.Quotas.OfProject(v.Path, id)
}

// slack is what stays free on state beside all that may grow to its bound: an
// eighth, from 320 MiB (the journal's cap and the ballast) to 4 GiB.
func slack(total int64) int64 { return min(max(total/8, 320*mib), 4*gib) }

// storeLimit is how much the engine's store may use: what it has and what is
// free, less the slack. It is pure. Whatever else grows on state takes from it.
func storeLimit(s Space, used int64) int64 {
	limit := max(used+s.Free-slack(s.Total), 64*mib)
	// In steps, so that not each written page of a log moves it.
	return limit / (16 * mib) * (16 * mib)
}

// store keeps the engine's store, as a whole, from filling state.
func (e *Enforcer) store(ctx context.Context) []status.Condition {
	if e.c.State == "" || len(e.c.Store) == 0 {
		return nil
	}
	const what = "the engine's store"
	var none bool
	for _, dir := range e.c.Store {
		has, inherits, err := e.c.Quotas.Project(dir)
		switch {
		case ended(err): // the engine has not made it yet
			return nil
		case errors.Is(err, quota.ErrNone):
			none = true
		case err != nil:
			return []status.Condition{failed(what, err)}
		case has != storeProject || !inherits:
			if err := e.c.Quotas.Adopt(ctx, dir, storeProject); err != nil {
				return []status.Condition{failed(what, err)}
			}
		}
	}
	u, err := quota.Usage{}, error(nil)
	if !none {
		u, err = e.c.Quotas.OfProject(e.c.Store[0], storeProject)
	}
	if none || errors.Is(err, quota.ErrNone) {
		return []status.Condition{{
			Code: "store-budget-observed", Severity: "info",
			Text:   "what containers write beside their volumes is not bounded: the engine's file system has no project quotas",
			Remedy: "nothing on a host of your own, or put the engine's store on XFS mounted with prjquota",
		}}
	}
	if err != nil {
		return []status.Condition{failed(what, err)}
	}
	s, err := e.c.Space(e.c.State)
	if err != nil {
		return []status.Condition{failed(what, err)}
	}
	if want := storeLimit(s, u.Used); want != u.Limit {
		if err := e.c.Quotas.SetLimit(e.c.Store[0], storeProject, want); err != nil {
			return []status.Condition{failed(what, err)}
		}
		u.Limit = want
	}
	if float64(u.Used) < nearlyFull*float64(u.Limit) {
		return nil
	}
	c := fullness("store", "", u)
	c.Text = fmt.Sprintf("images and containers use %s of the %s they may have", size(u.Used), size(u.Limit))
	c.Remedy = "holdfast top shows which service writes outside its volumes; restart it with a new container, or enlarge the disk and reboot"
	return []status.Condition{c}
}
