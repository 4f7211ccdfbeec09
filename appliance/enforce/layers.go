// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
	"github.com/holdfast/holdfast/appliance/status"
)

const (
	// leastLayer is what a service may always write beside its volumes.
	leastLayer = 32 * mib
	layerStep  = 8 * mib
)

// layerShare is what each of n services may write beside its volumes: all that
// may still be written to state, shared out evenly, so that no service takes it
// from another. used is what their layers have together. It is pure.
func layerShare(s Space, used int64, n int) int64 {
	share := (used + s.Free - slack(s.Total)) / int64(max(1, n))
	return max(share/layerStep*layerStep, leastLayer)
}

// layer gives a container's writable layer its own project before it starts.
// While nothing runs in it no file is on its way from the work folder to the
// other, which between two projects would fail.
func (e *Enforcer) layer(ctx context.Context, service, container string) error {
	if e.c.Layers == nil || len(e.c.Store) == 0 || e.b == nil {
		return nil
	}
	dirs, err := e.c.Layers.Dirs(ctx, container)
	if err != nil || len(dirs) == 0 {
		return err
	}
	if _, err := e.c.Quotas.OfProject(e.c.State, storeProject); errors.Is(err, quota.ErrNone) {
		return nil // store says so
	}
	id, err := e.layerProject(service)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if below, err := filepath.Rel(e.c.Store[0], dir); err != nil || !filepath.IsLocal(below) || below == "." {
			return fmt.Errorf("the layer of %s is at %s, not below %s", service, dir, e.c.Store[0])
		}
		has, inherits, err := e.c.Quotas.Project(dir)
		if err != nil {
			return err
		}
		if has != id || !inherits {
			if err := e.c.Quotas.Adopt(ctx, dir, id); err != nil {
				return err
			}
		}
	}
	e.told["layers"] = e.layers()
	return nil
}

// layerProject is a service's number on state; its old and its new container
// share it while they change places.
func (e *Enforcer) layerProject(service string) (uint32, error) {
	if e.layerIDs == nil {
		i, err := readIDs(e.c.KeptLayers)
		if err != nil {
			return 0, err
		}
		e.layerIDs = i
	}
	id, changed, err := e.layerIDs.give(service, 0, func(id uint32) (bool, error) {
		u, err := e.c.Quotas.OfProject(e.c.State, id)
		return u.Files > 0 || u.Used > 0, err
	})
	if err != nil || !changed {
		return id, err
	}
	if err := e.layerIDs.write(e.c.KeptLayers); err != nil {
		delete(e.layerIDs.Volumes, service)
		return 0, err
	}
	return id, nil
}

// layers sets each layer's limit to its share of the room there is.
func (e *Enforcer) layers() []status.Condition {
	if e.layerIDs == nil || e.b == nil {
		return nil
	}
	s, err := e.c.Space(e.c.State)
	if err != nil {
		return []status.Condition{failed("what services write beside their volumes", err)}
	}
	uses := map[string]quota.Usage{}
	var used int64
	for _, svc := range e.b.Services {
		if id, ok := e.layerIDs.Volumes[svc.Name]; ok {
			u, err := e.c.Quotas.OfProject(e.c.State, id)
			if err != nil {
				return []status.Condition{failed("what services write beside their volumes", err)}
			}
			uses[svc.Name], used = u, used+u.Used
		}
	}
	share := layerShare(s, used, len(e.b.Services))
	var list []status.Condition
	var full []string
	for _, svc := range e.b.Services {
		u, ok := uses[svc.Name]
		if !ok {
			continue
		}
		if u.Limit != share {
			if err := e.c.Quotas.SetLimit(e.c.State, u.Project, share); err != nil {
				list = append(list, failed("what "+svc.Name+" writes beside its volumes", err))
				continue
			}
		}
		if float64(u.Used) >= nearlyFull*float64(share) {
			full = append(full, fmt.Sprintf("%s %s", svc.Name, size(u.Used)))
		}
	}
	if len(full) > 0 {
		list = append(list, status.Condition{
			Code: "layer-full", Severity: "warning",
			Text:   fmt.Sprintf("written beside volumes, of %s each: %s", size(share), strings.Join(full, ", ")),
			Remedy: "holdfast restart does not empty it; put what the service writes on a volume, or enlarge the disk and reboot",
		})
	}
	return list
}
