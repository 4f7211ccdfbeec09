// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/mount"

	"github.com/holdfast/holdfast/appliance/engine"
)

// replaced reports whether the container that is to stay can do without the
// others: always, but while a start-first update waits for the new one.
func (x *decision) replaced(s *Service, c *engine.Container) bool {
	if c == nil || c.Name != s.next() {
		return true
	}
	return c.State == "running" && (c.Health == "healthy" || c.Health == "none" && x.ranFor(c, settle))
}

// ranFor reports whether a container has run for d, and looks again when it has.
func (x *decision) ranFor(c *engine.Container, d time.Duration) bool {
	at := c.Started.Add(d)
	if at.After(x.now) && !c.Started.After(x.now) { // else the clock was set back
		x.plan.wake(at)
		return false
	}
	return true
}

// replace makes way for a new container, or makes it before the old one goes.
func (x *decision) replace(s *Service, c *engine.Container, why string) {
	if c.State != "running" || !s.startFirst(c) {
		x.discard(s.Name, *c, s.Grace, why)
		return
	}
	if x.blocked == "" {
		x.add(Op{Kind: Create, Target: s.Name, Name: s.next(), Because: why + "; it is started before the old one ends"})
	}
}

// startFirst reports whether two containers of the service may run side by
// side for a moment: they must share nothing that they write or that only
// one can have.
func (s *Service) startFirst(c *engine.Container) bool {
	if s.Update != StartFirst || s.OneShot || len(s.hostPorts()) > 0 || s.Spec.Host.NetworkMode.IsHost() {
		return false
	}
	for _, m := range s.Spec.Host.Mounts {
		if !m.ReadOnly && m.Type != mount.TypeTmpfs {
			return false
		}
	}
	for _, b := range s.Spec.Host.Binds {
		opts := b[strings.LastIndexByte(b, ':')+1:]
		if !slices.Contains(strings.Split(opts, ","), "ro") {
			return false
		}
	}
	for target := range c.Volumes {
		if !slices.ContainsFunc(s.Spec.Host.Mounts, func(m mount.Mount) bool { return m.Target == target }) &&
			!slices.ContainsFunc(s.Spec.Host.Binds, func(b string) bool { return strings.Contains(b, ":"+target+":") }) {
			return false // the image's own volume, which is read-write
		}
	}
	return true
}
