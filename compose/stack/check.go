// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// maxServices bounds what one node is asked to run.
const maxServices = 200

// checkProject checks what only the whole model shows. It is compose-go's own
// consistency check, with lines, and what one node adds to it.
func (l *loading) checkProject(p *types.Project) {
	names := slices.Sorted(maps.Keys(p.Services))
	if len(names) == 0 || len(names) > maxServices {
		l.report([]string{"services"}, fmt.Sprintf("the stack has %d services", len(names)),
			fmt.Sprintf("write 1 to %d", maxServices))
		return
	}
	ports, containers := map[string][]published{}, map[string]string{}
	for _, name := range names {
		s := p.Services[name]
		c := &checking{loading: l, project: p, name: name}
		c.image(s)
		c.references(s)
		c.health(s)
		c.resources(s)
		c.mounts(s)
		c.ports(s, ports)
		c.restart(s)
		c.owners(s)
		c.environment(s)
		c.hooks(s)
		c.shares(s)
		c.updates(s)
		c.limits(s)
		c.foreignNetwork(s)
		if s.ContainerName != "" {
			if other, ok := containers[s.ContainerName]; ok {
				c.bad(fmt.Sprintf("%s has the same container name", other), "give each its own, or remove it", "container_name")
			}
			containers[s.ContainerName] = name
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Configs)) {
		o := p.Configs[name]
		n := 0
		for _, s := range []string{o.File, o.Content, o.Environment} {
			if s != "" {
				n++
			}
		}
		if o.Environment != "" && o.Content != "" {
			n--
		}
		switch {
		case n != 1:
			l.report([]string{"configs", name}, "a config has one source", "write one of file, content and environment")
		case o.Environment != "" && o.Content == "":
			l.report([]string{"configs", name, "environment"}, o.Environment+" is not set; the host's environment is not read",
				"set it in the stack folder's .env")
		}
	}
}

// checking is the check of one service.
type checking struct {
	*loading
	project *types.Project
	name    string
	// below is the place of an init container in its service.
	below []string
}

func (c *checking) bad(text, mend string, key ...string) {
	c.report(slices.Concat([]string{"services", c.name}, c.below, key), text, mend)
}

func (c *checking) environment(s types.ServiceConfig) {
	for _, k := range slices.Sorted(maps.Keys(s.Environment)) {
		if s.Environment[k] == nil {
			c.bad(k+" has no value; the host's environment is not read", "write a value, or set it in the stack folder's .env", "environment", k)
		}
	}
}

func (c *checking) image(s types.ServiceConfig) {
	if s.Image == "" {
		c.bad("the service has no image", "name one with `image`")
		return
	}
	if _, _, err := SplitImage(s.Image); err != nil {
		c.bad(err.Error(), "write NAME:TAG, NAME@sha256:… or NAME:TAG@sha256:…", "image")
	}
}

func (c *checking) references(s types.ServiceConfig) {
	for _, dep := range slices.Sorted(maps.Keys(s.DependsOn)) {
		if _, ok := c.project.Services[dep]; !ok && s.DependsOn[dep].Required {
			c.bad(c.missing(dep), "correct the name", "depends_on", dep)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(s.Networks)) {
		if _, ok := c.project.Networks[n]; !ok {
			c.bad(fmt.Sprintf("the network %q does not exist", n), "add it below the top-level `networks`", "networks", n)
		}
	}
	if s.NetworkMode != "" && len(s.Networks) > 0 {
		c.bad("network_mode and networks exclude each other", "remove one of them", "network_mode")
	}
	for i, v := range s.Volumes {
		if _, ok := c.project.Volumes[v.Source]; v.Type == types.VolumeTypeVolume && v.Source != "" && !ok {
			c.bad(fmt.Sprintf("the volume %q does not exist", v.Source), "add it below the top-level `volumes`", "volumes", fmt.Sprint(i))
		}
	}
	for _, o := range s.Configs {
		if _, ok := c.project.Configs[o.Source]; !ok {
			c.bad(fmt.Sprintf("the config %q does not exist", o.Source), "add it below the top-level `configs`", "configs", o.Source)
		}
	}
	for _, o := range s.Secrets {
		if _, ok := c.project.Secrets[o.Source]; !ok {
			c.bad(fmt.Sprintf("the secret %q does not exist", o.Source), "add it below the top-level `secrets`", "secrets", o.Source)
		}
	}
}

func (c *checking) health(s types.ServiceConfig) {
	if h := s.HealthCheck; h != nil && len(h.Test) > 0 {
		switch h.Test[0] {
		case "NONE", "CMD", "CMD-SHELL":
		default:
			c.bad("the test must start with CMD, CMD-SHELL or NONE", "write a text instead of a list to run it in a shell", "healthcheck", "test")
		}
	}
	// Only a check that is switched off is certain: an image may bring its own.
	for _, dep := range slices.Sorted(maps.Keys(s.DependsOn)) {
		d, ok := c.project.Services[dep]
		if !ok || s.DependsOn[dep].Condition != types.ServiceConditionHealthy || d.HealthCheck == nil {
			continue
		}
		if d.HealthCheck.Disable || len(d.HealthCheck.Test) > 0 && d.HealthCheck.Test[0] == "NONE" {
			c.bad(dep+" has its health check switched off and will never be healthy", "give it one, or wait for service_started", "depends_on", dep)
		}
	}
}

// resources refuses two different values for one limit.
func (c *checking) resources(s types.ServiceConfig) {
	if s.Deploy == nil {
		return
	}
	differ := func(key string, differs bool) {
		if differs {
			c.bad("the value differs from the one below deploy.resources", "remove one of them", key)
		}
	}
	if lim := s.Deploy.Resources.Limits; lim != nil {
		differ("cpus", s.CPUS != 0 && lim.NanoCPUs != 0 && lim.NanoCPUs.Value() != s.CPUS)
		differ("mem_limit", s.MemLimit != 0 && lim.MemoryBytes != 0 && lim.MemoryBytes != s.MemLimit)
		differ("pids_limit", s.PidsLimit != 0 && lim.Pids != 0 && lim.Pids != s.PidsLimit)
	}
	if res := s.Deploy.Resources.Reservations; res != nil {
		differ("mem_reservation", s.MemReservation != 0 && res.MemoryBytes != 0 && res.MemoryBytes != s.MemReservation)
	}
}

func (c *checking) mounts(s types.ServiceConfig) {
	seen := map[string]bool{}
	once := func(target string, key ...string) {
		if target == "" || !strings.HasPrefix(target, "/") {
			c.bad(fmt.Sprintf("%q is no absolute path in the container", target), "write one", key...)
		} else if seen[target] {
			c.bad(target+" is mounted twice", "keep one of them", key...)
		}
		seen[target] = true
	}
	for i, t := range s.Tmpfs {
		target, _, _ := strings.Cut(t, ":")
		once(target, "tmpfs", fmt.Sprint(i))
	}
	for i, v := range s.Volumes {
		once(v.Target, "volumes", fmt.Sprint(i))
	}
}

// published is a port of the box that a service takes.
type published struct{ host, service string }

// ports refuses what cannot be the same on each boot of each box, and a port
// that two services want.
func (c *checking) ports(s types.ServiceConfig, taken map[string][]published) {
	for i, p := range s.Ports {
		at := []string{"ports", fmt.Sprint(i)}
		host := p.HostIP
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			host = "*"
		} else if err != nil || !ip.IsLoopback() {
			c.bad(p.HostIP+" is no address of every box", "leave the address out, or use 127.0.0.1", at...)
		}
		if strings.Contains(p.Published, "-") {
			c.bad("a range of ports would be another port on each start", "publish one port", at...)
			continue
		}
		if p.Published == "" || p.Published == "0" {
			continue // the engine picks one
		}
		port := p.Published + "/" + cmp.Or(p.Protocol, "tcp")
		for _, other := range taken[port] {
			if other.service != c.name && (other.host == host || other.host == "*" || host == "*") {
				c.bad(fmt.Sprintf("port %s is published by %s too", port, other.service), "publish another port", at...)
				break
			}
		}
		taken[port] = append(taken[port], published{host, c.name})
	}
}

// restart refuses a policy that nobody knows, and two of them.
func (c *checking) restart(s types.ServiceConfig) {
	policy, times, counted := strings.Cut(s.Restart, ":")
	switch policy {
	case "", types.RestartPolicyNo, types.RestartPolicyAlways, types.RestartPolicyUnlessStopped:
		if counted {
			c.bad(fmt.Sprintf("%q is no restart policy", s.Restart), "only on-failure takes a number", "restart")
		}
	case types.RestartPolicyOnFailure:
		if n, err := strconv.Atoi(times); counted && (err != nil || n < 1) {
			c.bad(fmt.Sprintf("%q is no number of restarts", times), "write a whole number", "restart")
		}
	default:
		c.bad(fmt.Sprintf("%q is no restart policy", s.Restart), "write no, always, on-failure, on-failure:N or unless-stopped", "restart")
	}
	if s.Deploy == nil || s.Deploy.RestartPolicy == nil {
		return
	}
	if s.Restart != "" {
		c.bad("deploy.restart_policy says it too", "remove one of them", "restart")
	}
	switch cond := s.Deploy.RestartPolicy.Condition; cond {
	case "", "none", "any", "on-failure":
	default:
		c.bad(fmt.Sprintf("%q is no condition", cond), "write none, on-failure or any", "deploy", "restart_policy", "condition")
	}
}

// owners refuses names where the box needs numbers: names are the image's.
func (c *checking) owners(s types.ServiceConfig) {
	check := func(kind, source, key, value string) {
		if _, err := strconv.ParseUint(value, 10, 31); value != "" && err != nil {
			c.bad(fmt.Sprintf("%q is no number", value), "write the number", kind, source, key)
		}
	}
	for _, o := range s.Configs {
		check("configs", o.Source, "uid", o.UID)
		check("configs", o.Source, "gid", o.GID)
	}
	for _, o := range s.Secrets {
		check("secrets", o.Source, "uid", o.UID)
		check("secrets", o.Source, "gid", o.GID)
	}
}
