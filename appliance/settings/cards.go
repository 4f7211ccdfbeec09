// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"cmp"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/status"
)

// Card is one network card.
type Card struct {
	// Name of the interface, e.g. "ens192".
	Name string
	// MAC in lower case, "" where it has none.
	MAC string
	// Device is its place below /sys/devices, by which cards are ordered.
	Device string
}

// maxCards bounds what is looked at.
const maxCards = 64

// Cards are the network cards of the machine below root, in the order of the
// bus: interfaces with a device behind them, so not Docker's bridges and
// veths. What can't be read is left out.
func Cards(root string) []Card {
	dir := filepath.Join("/", root, "sys/class/net")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var cards []Card
	for _, e := range entries {
		device, err := filepath.EvalSymlinks(filepath.Join(dir, e.Name(), "device"))
		// Type 1 is Ethernet (ARPHRD_ETHER).
		if err != nil || readLine(filepath.Join(dir, e.Name(), "type")) != "1" || len(cards) == maxCards {
			continue
		}
		cards = append(cards, Card{Name: e.Name(), MAC: strings.ToLower(readLine(filepath.Join(dir, e.Name(), "address"))), Device: device})
	}
	slices.SortFunc(cards, func(a, b Card) int { return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Name, b.Name)) })
	return cards
}

// has says whether the configuration's name of a card is one of these.
func has(cards []Card, name string) bool {
	return slices.ContainsFunc(cards, func(c Card) bool { return c.Name == name || c.MAC == name })
}

// addresses are what a browser elsewhere could use: IPv4 and global IPv6 of
// the cards that have a link, in the order of the cards.
func addresses(cards []Card) []status.Address {
	out := []status.Address{}
	for _, c := range cards {
		i, err := net.InterfaceByName(c.Name)
		if err != nil || i.Flags&net.FlagRunning == 0 {
			continue // gone since, or without a cable
		}
		list, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil && shown(p.Addr()) {
				out = append(out, status.Address{Interface: c.Name, Address: p.Addr().String(), Prefix: p.Bits()})
			}
		}
	}
	return out
}

// shown leaves out what works on the link alone. An IPv4 address of that kind
// is shown: a cloud may give no other, and without DHCP it says so.
func shown(a netip.Addr) bool {
	// IPv6 once had addresses for one site, fec0::/10 (RFC 3879).
	if a.Is6() && a.As16()[0] == 0xfe && a.As16()[1]&0xc0 == 0xc0 {
		return false
	}
	return !a.IsLoopback() && !a.IsMulticast() && (a.Is4() || !a.IsLinkLocalUnicast())
}

// readLine reads a file of one line of at most a page, "" where it can't.
func readLine(name string) string {
	b, err := os.ReadFile(name)
	if err != nil || len(b) > 4096 {
		return ""
	}
	return strings.TrimSpace(string(b))
}
