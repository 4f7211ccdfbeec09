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
		{"hostname", network, "Host name", "Full name of the machine, such as box1.example.com. Empty: a name made up at the first boot.", 253},
		{"address", network, "IP address", "Address with prefix length, such as 10.0.0.5/24. Several with commas. Empty: DHCP.", 1024},
		{"gateway", network, "Gateway", "Address of the default gateway. Only with an IP address above. Several with commas.", 1024},
		{"dns", network, "DNS servers", "Addresses, separated by commas. Empty: what DHCP says.", 1024},
		{"ntp", network, "Time servers", "Names or addresses, separated by commas. Empty: what DHCP says, else the image's own.", 1024},
		{"proxy", network, "HTTP proxy", "Such as http://proxy.example.com:3128. Empty: none.", 1024},
		{"ssh_keys", access, "SSH public keys", "Public keys of administrators, separated by commas. Empty: no login by SSH.", 65535},
		{"config", all, "Configuration document", "The whole configuration as YAML, plain or in base64. It is read after the fields above, which win.", 65535},
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
