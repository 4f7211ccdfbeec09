// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// What the engine or the kernel refuses when a container is created or
// started: found on the box it would be a service that never runs.

// capabilities are Linux' own, without CAP_ (capability.h of Linux 6.12).
var capabilities = strings.Fields(`ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN
	DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD
	NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT
	SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`)

// ulimits are the engine's names (setrlimit).
var ulimits = strings.Fields("core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack")

// sysctls are those a container has for itself; the rest is the machine's.
var sysctls = regexp.MustCompile(`^(kernel\.(domainname|msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\..+|net\..+)$`)

var (
	signalName = regexp.MustCompile(`^(SIG)?(ABRT|ALRM|BUS|CHLD|CLD|CONT|FPE|HUP|ILL|INT|IO|IOT|KILL|PIPE|POLL|PROF|PWR|QUIT|SEGV|STKFLT|STOP|SYS|TERM|TRAP|TSTP|TTIN|TTOU|URG|USR1|USR2|VTALRM|WINCH|XCPU|XFSZ|RTMIN(\+\d{1,2})?|RTMAX(-\d{1,2})?)$`)
	cpuList    = regexp.MustCompile(`^\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*$`)
)

// leastMemory is the engine's least memory limit.
const leastMemory = 6 << 20

// limits checks what a service, or an init container, asks of the kernel.
func (c *checking) limits(s types.ServiceConfig) {
	c.names(s)
	for _, name := range slices.Sorted(maps.Keys(s.Ulimits)) {
		u := s.Ulimits[name]
		switch {
		case !slices.Contains(ulimits, name):
			c.bad(fmt.Sprintf("%q is no limit of a process", name), "write one of "+strings.Join(ulimits, ", "), "ulimits", name)
		case u.Single == 0 && u.Soft > u.Hard && u.Hard >= 0:
			c.bad("the soft limit is above the hard one", "write both, the soft one not above the hard one", "ulimits", name)
		}
	}
	memory, reserved, processors := s.MemLimit, s.MemReservation, s.CPUS != 0
	if s.Deploy != nil {
		if l := s.Deploy.Resources.Limits; l != nil {
			memory = max(memory, l.MemoryBytes)
			processors = processors || l.NanoCPUs != 0
		}
		if r := s.Deploy.Resources.Reservations; r != nil {
			reserved = max(reserved, r.MemoryBytes)
		}
	}
	key := "mem_limit"
	if s.MemLimit == 0 {
		key = "deploy"
	}
	switch {
	case memory != 0 && memory < leastMemory:
		c.bad("the engine's least is 6 MiB", "write 6m or more", key)
	case memory != 0 && reserved > memory:
		c.bad("more is reserved than the limit allows", "reserve less, or raise the limit", key)
	case s.MemSwapLimit > 0 && memory == 0:
		c.bad("it counts memory and swap together and needs a limit of the memory", "add mem_limit", "memswap_limit")
	case s.MemSwapLimit > 0 && s.MemSwapLimit < memory:
		c.bad("it counts memory and swap together, and the memory alone may be more", "write mem_limit or more, or -1", "memswap_limit")
	}
	if processors && (s.CPUQuota != 0 || s.CPUPeriod != 0) {
		c.bad("cpus says it too", "remove cpu_quota and cpu_period, or cpus", "cpu_quota")
	}
	if s.CPUSet != "" && !cpuList.MatchString(s.CPUSet) {
		c.bad(fmt.Sprintf("%q is no list of processors", s.CPUSet), "write numbers, such as 0-1,3", "cpuset")
	}
	if s.OomScoreAdj < -1000 || s.OomScoreAdj > 1000 {
		c.bad(fmt.Sprintf("%d is out of bounds", s.OomScoreAdj), "write -1000 to 1000", "oom_score_adj")
	}
	if b := s.BlkioConfig; b != nil && b.Weight != 0 && (b.Weight < 10 || b.Weight > 1000) {
		c.bad(fmt.Sprintf("%d is out of bounds", b.Weight), "write 10 to 1000", "blkio_config", "weight")
	}
}

// names checks words that must be the kernel's.
func (c *checking) names(s types.ServiceConfig) {
	for _, l := range []struct {
		key  string
		caps []string
	}{{"cap_add", s.CapAdd}, {"cap_drop", s.CapDrop}} {
		for i, name := range l.caps {
			if !slices.Contains(capabilities, strings.TrimPrefix(strings.ToUpper(name), "CAP_")) {
				c.bad(fmt.Sprintf("%q is no capability", name), "correct the name", l.key, strconv.Itoa(i))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Sysctls)) {
		if !sysctls.MatchString(name) {
			c.bad("this is a setting of the whole machine", "remove it: a container has kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.* and net.* for itself", "sysctls", name)
		}
	}
	if n, err := strconv.Atoi(s.StopSignal); s.StopSignal != "" && !signalName.MatchString(strings.ToUpper(s.StopSignal)) && (err != nil || n < 1 || n > 64) {
		c.bad(fmt.Sprintf("%q is no signal", s.StopSignal), "write a name such as SIGINT, or 1 to 64", "stop_signal")
	}
}

// foreignNetwork refuses what a container without a network of its own cannot
// have: the engine refuses some of it and ignores the rest.
func (c *checking) foreignNetwork(s types.ServiceConfig) {
	if s.Uts == "host" && s.Hostname != "" {
		c.bad("uts: host is the box's own name", dropIt, "hostname")
	}
	if s.NetworkMode == "" || s.NetworkMode == "bridge" {
		return
	}
	refuse := func(set bool, key, mend string) {
		if set {
			c.bad(fmt.Sprintf("network_mode %s has no place for it", s.NetworkMode), mend, key)
		}
	}
	other, shared := strings.CutPrefix(s.NetworkMode, types.ServicePrefix)
	mend := dropIt
	if shared {
		mend = "write it in the service " + other
	}
	refuse(len(s.Ports) > 0, "ports", mend)
	refuse(s.MacAddress != "", "mac_address", mend)
	if !shared {
		return
	}
	refuse(len(s.Expose) > 0, "expose", mend)
	refuse(s.Hostname != "", "hostname", mend)
	refuse(len(s.DNS) > 0, "dns", mend)
	refuse(len(s.ExtraHosts) > 0, "extra_hosts", mend)
}
