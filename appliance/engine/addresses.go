// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// addresses returns where the host reaches a container, and the id or name of
// the container whose network it shares, "" where it has its own.
func addresses(r container.InspectResponse) (ips []netip.Addr, shares string) {
	if r.HostConfig != nil {
		mode := r.HostConfig.NetworkMode
		if mode.IsHost() {
			return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, ""
		}
		if mode.IsContainer() {
			return nil, strings.TrimPrefix(string(mode), "container:")
		}
	}
	if r.NetworkSettings == nil {
		return nil, ""
	}
	var six []netip.Addr
	for _, name := range slices.Sorted(maps.Keys(r.NetworkSettings.Networks)) {
		n := r.NetworkSettings.Networks[name]
		if n == nil {
			continue
		}
		if n.IPAddress.IsValid() {
			ips = append(ips, n.IPAddress)
		}
		if n.GlobalIPv6Address.IsValid() {
			six = append(six, n.GlobalIPv6Address)
		}
	}
	return append(ips, six...), ""
}
