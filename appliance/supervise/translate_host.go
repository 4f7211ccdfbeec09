// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Caps of a container's log where the stack names none: a log must never
// fill the disk.
const (
	logMaxSize = "10m"
	logMaxFile = "3"
)

// host translates what the engine calls the host configuration.
func (t *translation) host() (container.HostConfig, error) {
	s := t.s
	h := container.HostConfig{
		// The supervisor restarts, never the engine: two that both restart
		// would fight over order and backoff.
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		CapAdd:         s.CapAdd,
		CapDrop:        s.CapDrop,
		CgroupnsMode:   container.CgroupnsMode(s.Cgroup),
		DNSOptions:     s.DNSOpts,
		DNSSearch:      s.DNSSearch,
		ExtraHosts:     s.ExtraHosts.AsList(":"),
		GroupAdd:       s.GroupAdd,
		IpcMode:        container.IpcMode(t.namespace(s.Ipc)),
		PidMode:        container.PidMode(t.namespace(s.Pid)),
		UTSMode:        container.UTSMode(s.Uts),
		UsernsMode:     container.UsernsMode(s.UserNSMode),
		OomScoreAdj:    int(s.OomScoreAdj),
		Privileged:     s.Privileged,
		ReadonlyRootfs: s.ReadOnly,
		VolumesFrom:    t.volumesFrom(),
		Links:          t.links(),
		ShmSize:        int64(s.ShmSize),
		StorageOpt:     s.StorageOpt,
		Sysctls:        s.Sysctls,
		Runtime:        s.Runtime,
		Init:           s.Init,
		Isolation:      container.Isolation(s.Isolation),
		Annotations:    s.Annotations,
		LogConfig:      logging(s.Logging),
		PortBindings:   network.PortMap{},
		Resources:      resources(s),
	}
	slices.Sort(h.ExtraHosts)
	var err error
	if h.SecurityOpt, err = t.securityOpt(); err != nil {
		return h, err
	}
	// The engine takes this one as two empty lists, not as an option.
	if i := slices.Index(h.SecurityOpt, "systempaths=unconfined"); i >= 0 {
		h.SecurityOpt = slices.Delete(h.SecurityOpt, i, i+1)
		h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
	}
	for _, a := range s.DNS {
		ip, err := netip.ParseAddr(a)
		if err != nil {
			return h, fmt.Errorf("dns %q: %w", a, err)
		}
		h.DNS = append(h.DNS, ip)
	}
	for _, pc := range s.Ports {
		p, b, err := port(pc)
		if err != nil {
			return h, err
		}
		h.PortBindings[p] = append(h.PortBindings[p], b)
	}
	for _, e := range s.Tmpfs {
		path, opts, _ := strings.Cut(e, ":")
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		h.Tmpfs[path] = opts
	}
	return h, t.mounts(&h)
}

// namespace turns "service:x" into the container it means; names stay valid
// when that container is replaced.
func (t *translation) namespace(mode string) string {
	if s, ok := strings.CutPrefix(mode, types.ServicePrefix); ok {
		return "container:" + t.containerName(s)
	}
	return mode
}

// volumesFrom names the containers whose volumes the service mounts too, with
// the mode, which Compose drops.
func (t *translation) volumesFrom() []string {
	var out []string
	for _, v := range t.s.VolumesFrom {
		service, mode, ok := strings.Cut(v, ":")
		service = t.containerName(service)
		if ok {
			service += ":" + mode
		}
		out = append(out, service)
	}
	return out
}

// securityOpt adds no-new-privileges unless the stack decides it itself, and
// puts a profile of the stack folder in the place of its name.
func (t *translation) securityOpt() ([]string, error) {
	out := slices.Clone(t.s.SecurityOpt)
	decided := false
	for i, o := range out {
		decided = decided || strings.HasPrefix(o, "no-new-privileges")
		name, value, ok := strings.Cut(o, "=")
		if !ok {
			name, value, _ = strings.Cut(o, ":")
		}
		if name != "seccomp" || value == "unconfined" || value == "builtin" {
			continue
		}
		data, err := t.o.ReadFile(filepath.Join(t.p.WorkingDir, value))
		if err != nil {
			return nil, fmt.Errorf("security_opt: %w", err)
		}
		var profile bytes.Buffer
		if err := json.Compact(&profile, data); err != nil {
			return nil, fmt.Errorf("security_opt: %s: %w", value, err)
		}
		out[i] = "seccomp=" + profile.String()
	}
	if !decided {
		out = append(out, "no-new-privileges:true")
	}
	return out, nil
}

// logging caps the logs of the two drivers that write to this box's disk.
func logging(l *types.LoggingConfig) container.LogConfig {
	c := container.LogConfig{Type: "json-file", Config: map[string]string{}}
	if l != nil {
		if l.Driver != "" {
			c.Type = l.Driver
		}
		maps.Copy(c.Config, l.Options)
	}
	if c.Type == "json-file" || c.Type == "local" {
		if c.Config["max-size"] == "" {
			c.Config["max-size"] = logMaxSize
		}
		if c.Config["max-file"] == "" {
			c.Config["max-file"] = logMaxFile
		}
	}
	return c
}

func resources(s types.ServiceConfig) container.Resources {
	r := container.Resources{
		CgroupParent: s.CgroupParent, CPUShares: s.CPUShares, CPUPeriod: s.CPUPeriod, CPUQuota: s.CPUQuota,
		CPURealtimePeriod: s.CPURTPeriod, CPURealtimeRuntime: s.CPURTRuntime, CpusetCpus: s.CPUSet,
		NanoCPUs: int64(s.CPUS * 1e9), Memory: int64(s.MemLimit), MemoryReservation: int64(s.MemReservation),
		MemorySwap: int64(s.MemSwapLimit), DeviceCgroupRules: s.DeviceCgroupRules,
	}
	if s.MemSwappiness != 0 {
		v := int64(s.MemSwappiness)
		r.MemorySwappiness = &v
	}
	if s.PidsLimit != 0 {
		r.PidsLimit = &s.PidsLimit
	}
	r.OomKillDisable = &s.OomKillDisable
	for _, d := range s.Devices {
		r.Devices = append(r.Devices, container.DeviceMapping{PathOnHost: d.Source, PathInContainer: d.Target, CgroupPermissions: d.Permissions})
	}
	if b := s.BlkioConfig; b != nil {
		r.BlkioWeight = b.Weight
		for _, w := range b.WeightDevice {
			r.BlkioWeightDevice = append(r.BlkioWeightDevice, &blkiodev.WeightDevice{Path: w.Path, Weight: w.Weight})
		}
		r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps = throttle(b.DeviceReadBps), throttle(b.DeviceWriteBps)
		r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps = throttle(b.DeviceReadIOps), throttle(b.DeviceWriteIOps)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Ulimits)) {
		u := s.Ulimits[name]
		soft, hard := int64(u.Soft), int64(u.Hard)
		if u.Single != 0 {
			soft, hard = int64(u.Single), int64(u.Single)
		}
		r.Ulimits = append(r.Ulimits, &container.Ulimit{Name: name, Soft: soft, Hard: hard})
	}
	if s.Deploy == nil {
		return r
	}
	if l := s.Deploy.Resources.Limits; l != nil {
		if l.NanoCPUs != 0 {
			r.NanoCPUs = int64(l.NanoCPUs * 1e9)
		}
		if l.MemoryBytes != 0 {
			r.Memory = int64(l.MemoryBytes)
		}
		if l.Pids != 0 {
			r.PidsLimit = &l.Pids
		}
	}
	if l := s.Deploy.Resources.Reservations; l != nil {
		if l.MemoryBytes != 0 {
			r.MemoryReservation = int64(l.MemoryBytes)
		}
		// Compose drops this key on one node. As shares it means what it
		// says: that much of a contended processor, in units of 1024 a core.
		if l.NanoCPUs != 0 && r.CPUShares == 0 {
			r.CPUShares = max(2, int64(float64(l.NanoCPUs.Value())*1024))
		}
	}
	return r
}

func throttle(in []types.ThrottleDevice) []*blkiodev.ThrottleDevice {
	var out []*blkiodev.ThrottleDevice
	for _, d := range in {
		out = append(out, &blkiodev.ThrottleDevice{Path: d.Path, Rate: uint64(d.Rate)})
	}
	return out
}

func port(pc types.ServicePortConfig) (network.Port, network.PortBinding, error) {
	proto := pc.Protocol
	if proto == "" {
		proto = "tcp"
	}
	if pc.Target == 0 || pc.Target > 65535 {
		return network.Port{}, network.PortBinding{}, fmt.Errorf("ports: target %d is no port", pc.Target)
	}
	p, ok := network.PortFrom(uint16(pc.Target), network.IPProtocol(proto))
	if !ok {
		return p, network.PortBinding{}, fmt.Errorf("ports: %d/%s is no port", pc.Target, proto)
	}
	b := network.PortBinding{HostPort: pc.Published}
	if pc.HostIP != "" {
		ip, err := netip.ParseAddr(pc.HostIP)
		if err != nil {
			return p, b, fmt.Errorf("ports: host_ip %q: %w", pc.HostIP, err)
		}
		b.HostIP = ip
	}
	return p, b, nil
}
