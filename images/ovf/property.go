// SPDX-License-Identifier: Apache-2.0

package ovf

import (
	"maps"
	"slices"
	"strings"
)

// Class of our properties: the guest sees holdfast.KEY.
const Class = "holdfast"

// Property is one question to the site admin.
type Property struct {
	Key string
	// Category is its heading in vSphere's form.
	Category           string
	Label, Description string
	// MaxLen is the longest value in bytes.
	MaxLen int
}

// Properties lists them in the order of the form. Their meaning, and the checks
// of their values, are the box's (package appliance/config). They can be read by
// anyone who may look at the machine in vCenter, so none asks for a secret.
func Properties() []Property {
	const network, access, all = "1. Network", "2. Access", "3. Whole configuration"
	return []Property{
		{"hostname", network, "Host name", "Name of the machine, such as box1.example.com, at most 64 characters. Empty: none.", 64},
		{"address", network, "IP address", "Address with its prefix length, such as 10.0.0.5/24; several with commas. Empty: DHCP.", 1024},
		{"gateway", network, "Gateway", "Address of the default gateway. It goes with an IP address above, and lies in its network.", 1024},
		{"dns", network, "DNS servers", "Addresses, separated by commas. Empty: what DHCP says.", 1024},
		{"ntp", network, "Time servers", "Names or addresses, separated by commas. Empty: what DHCP says.", 1024},
		{"proxy", network, "HTTP proxy", "Such as http://proxy.example.com:3128, for http and https. Empty: none.", 1024},
		{"ssh_keys", access, "SSH public keys", "Public keys of administrators, separated by commas. Empty: ssh is off.", 65535},
		{"config", all, "Configuration document", "The whole configuration as YAML, best as base64, with keys that have no field above. A field above replaces its key.", 65535},
	}
}

func checkProperties(values map[string]string) error {
	known := map[string]int{}
	var keys []string
	for _, p := range Properties() {
		known[p.Key] = p.MaxLen
		keys = append(keys, p.Key)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		v := values[key]
		limit, ok := known[key]
		if !ok {
			return bad("Properties", "%q is not known: use one of %s", key, strings.Join(keys, ", "))
		}
		if len(v) > limit {
			return bad("Properties", "%s has %d bytes, more than %d", key, len(v), limit)
		}
	}
	return nil
}
