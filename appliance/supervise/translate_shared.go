// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/holdfast/holdfast/appliance/engine"
)

// shared translates the networks and volumes that services use.
func shared(p *types.Project, d *Desired) error {
	nets, vols := map[string]bool{}, map[string]bool{}
	for _, s := range p.Services {
		for n := range s.Networks {
			nets[n] = true
		}
		mounts := s.Volumes
		for _, h := range s.PreStart {
			mounts = append(mounts[:len(mounts):len(mounts)], h.Volumes...)
			for n := range h.Networks {
				nets[n] = true
			}
		}
		for _, v := range mounts {
			if v.Type == types.VolumeTypeVolume && v.Source != "" {
				vols[v.Source] = true
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(nets)) {
		n, ok := p.Networks[key]
		if !ok {
			return fmt.Errorf("network %s is used and not defined", key)
		}
		if n.External {
			d.ExternalNetworks = append(d.ExternalNetworks, n.Name)
			continue
		}
		ipam, err := ipam(n.Ipam)
		if err != nil {
			return fmt.Errorf("network %s: %w", key, err)
		}
		made := engine.Network{
			Name: n.Name, Driver: n.Driver, Options: n.DriverOpts, Internal: n.Internal, Attachable: n.Attachable,
			IPv4: n.EnableIPv4, IPv6: n.EnableIPv6, IPAM: ipam,
			Labels: with(n.Labels, engine.ProjectLabel, p.Name, "com.docker.compose.network", key, "com.docker.compose.version", ComposeVersion),
		}
		made.Labels[labelHash] = hashOf(made)
		d.Networks = append(d.Networks, made)
	}
	for _, key := range slices.Sorted(maps.Keys(vols)) {
		v, ok := p.Volumes[key]
		if !ok {
			return fmt.Errorf("volume %s is used and not defined", key)
		}
		if v.External {
			d.ExternalVolumes = append(d.ExternalVolumes, v.Name)
			continue
		}
		made := engine.Volume{
			Name: v.Name, Driver: v.Driver, Options: v.DriverOpts,
			Labels: with(v.Labels, engine.ProjectLabel, p.Name, "com.docker.compose.volume", key, "com.docker.compose.version", ComposeVersion),
		}
		made.Labels[labelHash] = hashOf(made)
		d.Volumes = append(d.Volumes, made)
	}
	return nil
}

// hashOf identifies what the engine is asked for.
func hashOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain values always marshal
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func with(labels types.Labels, pairs ...string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, labels)
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = pairs[i+1]
	}
	return out
}

func ipam(c types.IPAMConfig) (*network.IPAM, error) {
	if c.Driver == "" && len(c.Config) == 0 {
		return nil, nil
	}
	out := &network.IPAM{Driver: c.Driver, Options: c.Options}
	for _, p := range c.Config {
		var e network.IPAMConfig
		var err error
		if p.Subnet != "" {
			if e.Subnet, err = netip.ParsePrefix(p.Subnet); err != nil {
				return nil, err
			}
		}
		if p.IPRange != "" {
			if e.IPRange, err = netip.ParsePrefix(p.IPRange); err != nil {
				return nil, err
			}
		}
		if p.Gateway != "" {
			if e.Gateway, err = netip.ParseAddr(p.Gateway); err != nil {
				return nil, err
			}
		}
		for k, v := range p.AuxiliaryAddresses {
			if e.AuxAddress == nil {
				e.AuxAddress = map[string]netip.Addr{}
			}
			if e.AuxAddress[k], err = netip.ParseAddr(v); err != nil {
				return nil, err
			}
		}
		out.Config = append(out.Config, e)
	}
	return out, nil
}

// networks connects the service and sets its network mode.
func (t *translation) networks(h *container.HostConfig) (map[string]*network.EndpointSettings, error) {
	s := t.s
	if s.NetworkMode != "" {
		h.NetworkMode = container.NetworkMode(t.namespace(s.NetworkMode))
		return nil, nil
	}
	if len(s.Networks) == 0 {
		h.NetworkMode = "none"
		return nil, nil
	}
	out := map[string]*network.EndpointSettings{}
	for i, key := range s.NetworksByPriority() {
		def, ok := t.p.Networks[key]
		if !ok {
			return nil, fmt.Errorf("network %s is not defined", key)
		}
		// The first one is where the default route and published ports go.
		if i == 0 {
			h.NetworkMode = container.NetworkMode(def.Name)
		}
		e, err := t.endpoint(key, s.Networks[key], i == 0)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", key, err)
		}
		out[def.Name] = e
	}
	return out, nil
}

// endpoint is the service's place in one network; main is the one of the
// default route.
func (t *translation) endpoint(key string, c *types.ServiceNetworkConfig, main bool) (*network.EndpointSettings, error) {
	e := &network.EndpointSettings{Aliases: []string{t.containerName(t.s.Name), t.s.Name}, Links: t.links()}
	mac := ""
	if main {
		mac = t.s.MacAddress
	}
	if c != nil {
		e.Aliases = append(e.Aliases, c.Aliases...)
		e.DriverOpts, e.GwPriority = c.DriverOpts, c.GatewayPriority
		mac = cmp.Or(c.MacAddress, mac)
		e.IPAMConfig = &network.EndpointIPAMConfig{}
		for _, a := range []struct {
			from string
			to   *netip.Addr
		}{{c.Ipv4Address, &e.IPAMConfig.IPv4Address}, {c.Ipv6Address, &e.IPAMConfig.IPv6Address}} {
			if a.from == "" {
				continue
			}
			ip, err := netip.ParseAddr(a.from)
			if err != nil {
				return nil, fmt.Errorf("address %q: %w", a.from, err)
			}
			*a.to = ip
		}
		for _, l := range c.LinkLocalIPs {
			ip, err := netip.ParseAddr(l)
			if err != nil {
				return nil, fmt.Errorf("link_local_ips %q: %w", l, err)
			}
			e.IPAMConfig.LinkLocalIPs = append(e.IPAMConfig.LinkLocalIPs, ip)
		}
	}
	if mac != "" {
		if err := e.MacAddress.UnmarshalText([]byte(mac)); err != nil {
			return nil, fmt.Errorf("mac_address %q: %w", mac, err)
		}
	}
	return e, nil
}

// links are extra names for other services, "container:name": for each the
// three that Compose gives.
func (t *translation) links() []string {
	var out []string
	for _, l := range t.s.Links {
		service, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = service
		}
		name := t.containerName(service)
		out = append(out, name+":"+alias, name+":"+service+"-1", name+":"+t.p.Name+"-"+service+"-1")
	}
	slices.Sort(out)
	return out
}

// labels adds what docker compose finds a container by, and the generation.
func (t *translation) labels(svc *Service) {
	var deps []string
	for _, d := range svc.DependsOn {
		deps = append(deps, fmt.Sprintf("%s:%s:%t", d.Service, d.Condition, d.Restart))
	}
	_, digest, _ := strings.Cut(svc.Image, "@")
	svc.Spec.Config.Labels = with(t.s.Labels,
		engine.ProjectLabel, t.p.Name,
		engine.ServiceLabel, svc.Name,
		"com.docker.compose.container-number", "1",
		"com.docker.compose.oneoff", "False",
		"com.docker.compose.depends_on", strings.Join(deps, ","),
		"com.docker.compose.image", digest,
		"com.docker.compose.project.config_files", strings.Join(t.files(), ","),
		"com.docker.compose.project.working_dir", t.p.WorkingDir,
		"com.docker.compose.version", ComposeVersion,
		labelHash, svc.Hash,
		labelGeneration, fmt.Sprint(t.o.Generation),
	)
}
