// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// maxHooks bounds each of pre_start, post_start and pre_stop.
const maxHooks = 16

// hooks checks what runs before, after and at the end of a service.
func (c *checking) hooks(s types.ServiceConfig) {
	for _, h := range []struct {
		key  string
		list []types.ServiceHook
	}{{"post_start", s.PostStart}, {"pre_stop", s.PreStop}} {
		if len(h.list) > maxHooks {
			c.bad(fmt.Sprintf("%d commands are more than %d", len(h.list), maxHooks), "put them into one script", h.key)
		}
		for i, hook := range h.list {
			if len(hook.Command) == 0 || hook.Command[0] == "" {
				c.bad("there is no command", "write one", h.key, strconv.Itoa(i))
			}
			for k, v := range hook.Environment {
				if v == nil {
					c.bad(k+" has no value; the host's environment is not read", "write a value", h.key, strconv.Itoa(i), "environment", k)
				} else if literalSecret(k, *v) {
					c.bad(literalText, literalMend, h.key, strconv.Itoa(i), "environment", k)
				}
			}
		}
	}
	if len(s.PreStart) > maxHooks {
		c.bad(fmt.Sprintf("%d init containers are more than %d", len(s.PreStart), maxHooks), "make them services", "pre_start")
		return
	}
	for i, p := range s.PreStart {
		init := &checking{loading: c.loading, project: c.project, name: c.name, below: []string{"pre_start", strconv.Itoa(i)}}
		spec := types.ServiceConfig{Name: c.name, ContainerSpec: p.ContainerSpec}
		init.image(spec)
		init.references(spec)
		init.mounts(spec)
		init.owners(spec)
		init.environment(spec)
		init.limits(spec)
		for _, k := range []string{"mac_address", "volumes_from", "network_mode"} {
			if init.wrote(k) {
				init.bad("an init container has the volumes and networks of its service, and no address of its own", dropIt, k)
			}
		}
		for n, at := range p.Networks {
			if at == nil {
				continue
			}
			for _, k := range []string{"ipv4_address", "ipv6_address", "mac_address", "aliases", "link_local_ips"} {
				if init.wrote("networks", n, k) {
					init.bad("an init container has no name or address of its own", dropIt, "networks", n, k)
				}
			}
		}
	}
}

// wrote says whether the stack itself has a key of this service or hook, and
// not only what the hook takes over from its service.
func (c *checking) wrote(key ...string) bool {
	return c.src.has(append(append([]string{"services", c.name}, c.below...), key...)...)
}

// updates refuses start-first where two containers cannot be at once.
func (c *checking) updates(s types.ServiceConfig) {
	if s.Deploy == nil || s.Deploy.UpdateConfig == nil {
		return
	}
	key := []string{"deploy", "update_config", "order"}
	no := func(why string) {
		c.bad("start-first has two containers of the service at once, and "+why, "write stop-first, or remove it", key...)
	}
	switch s.Deploy.UpdateConfig.Order {
	case "", "stop-first":
		return
	case "start-first":
	default:
		c.bad(fmt.Sprintf("%q is no order", s.Deploy.UpdateConfig.Order), "write stop-first or start-first", key...)
		return
	}
	switch {
	case s.ContainerName != "":
		no("container_name is one name")
	case slices.ContainsFunc(s.Ports, func(p types.ServicePortConfig) bool { return p.Published != "" && p.Published != "0" }):
		no("a published port has one owner")
	case slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool {
		return !v.ReadOnly && v.Type != types.VolumeTypeTmpfs
	}) || slices.ContainsFunc(s.VolumesFrom, func(v string) bool { return !strings.HasSuffix(v, ":ro") }):
		no("both would write to one volume")
	case s.NetworkMode != "" && s.NetworkMode != "none" && s.NetworkMode != "bridge":
		no("they would share one network")
	default:
		for _, n := range s.Networks {
			if n != nil && (n.Ipv4Address != "" || n.Ipv6Address != "" || n.MacAddress != "") || s.MacAddress != "" {
				no("an address has one owner")
				return
			}
		}
		for _, other := range c.project.Services {
			for _, ref := range append([]string{other.NetworkMode, other.Ipc, other.Pid}, other.VolumesFrom...) {
				name, _, _ := strings.Cut(strings.TrimPrefix(ref, types.ServicePrefix), ":")
				if name == s.Name {
					no("the service " + other.Name + " shares what is this container's")
					return
				}
			}
		}
	}
}

// shares refuses what volumes_from and links cannot mean on a box.
func (c *checking) shares(s types.ServiceConfig) {
	for i, v := range s.VolumesFrom {
		name, mode, has := strings.Cut(v, ":")
		at := []string{"volumes_from", strconv.Itoa(i)}
		switch {
		case name == "container":
			c.bad("nothing outside the stack runs on the box", "name a service", at...)
		case has && mode != "ro" && mode != "rw":
			c.bad(fmt.Sprintf("%q is no mode", mode), "write SERVICE, SERVICE:ro or SERVICE:rw", at...)
		case name == c.name:
			c.bad("these are the service's own", dropIt, at...)
		default:
			if _, ok := c.project.Services[name]; !ok {
				c.bad(c.missing(name), "correct the name", at...)
			}
		}
	}
	if s.MacAddress != "" && s.NetworkMode == "bridge" {
		c.bad("network_mode bridge has no place for it", "remove one of them", "mac_address")
	}
	for i, link := range s.Links {
		name, _, _ := strings.Cut(link, ":")
		other, ok := c.project.Services[name]
		if !ok {
			continue // the dependency that a link is says so
		}
		if s.NetworkMode != "" || other.NetworkMode != "" {
			c.bad("a link joins services of one network, and network_mode has none", dropIt, "links", strconv.Itoa(i))
			continue
		}
		shared := false
		for n := range s.Networks {
			_, has := other.Networks[n]
			shared = shared || has
		}
		if !shared {
			c.bad("the two services have no network in common", "put "+name+" on a network of this service", "links", strconv.Itoa(i))
		}
	}
}

// missing says that a service does not exist, or why not.
func (c *checking) missing(name string) string {
	if of, ok := c.disabled[name]; ok {
		return fmt.Sprintf("the service %q is of the profile %s, which %s in .env does not enable", name, strings.Join(of, " or "), profilesKey)
	}
	return fmt.Sprintf("the service %q does not exist", name)
}
