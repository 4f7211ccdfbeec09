// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/status"
)

// View is what can be seen of a box's configuration at work. It holds no
// secrets.
type View struct {
	Hostname  string
	Platform  string
	Addresses []status.Address
	Config    status.Config
	SSH       status.SSH
	// Conditions are what an admin should know of it.
	Conditions []status.Condition
}

// Look reads the view below root, "" on a box. What can't be read shows as a
// condition.
func Look(root string) View {
	cards := Cards(root)
	v := View{
		Hostname:  readLine(filepath.Join("/", root, "proc/sys/kernel/hostname")),
		Addresses: addresses(cards),
		Config:    status.Config{Sources: []status.ConfigSource{}, Origin: map[string]string{}},
		SSH:       access(root),
	}
	if v.Hostname == "localhost" || v.Hostname == "(none)" {
		v.Hostname = "" // the kernel's way to say that it has none
	}
	e, err := config.Load(root)
	if err != nil {
		c := status.Condition{Code: "config-unread", Severity: "warning", Text: err.Error(), Remedy: "journalctl -u holdfast-config-local -u holdfast-config"}
		if errors.Is(err, fs.ErrNotExist) {
			c.Text = "the configuration of this boot was not read, the box runs with its defaults"
		}
		v.Conditions = []status.Condition{c}
		return v
	}
	v.Platform = string(e.Platform)
	v.Config = summary(e)
	v.Conditions = append(e.Conditions(), missingCard(e.Config.Network, cards)...)
	return v
}

// summary is the configuration without its values.
func summary(e config.Effective) status.Config {
	s := status.Config{Sources: []status.ConfigSource{}, Origin: map[string]string{}}
	for _, x := range e.Sources {
		source := status.ConfigSource{Name: string(x.Source), Where: x.Where, State: x.State, Why: x.Why, Text: x.Text, Problems: []string{}}
		for _, p := range x.Problems {
			source.Problems = append(source.Problems, p.String())
		}
		s.Sources = append(s.Sources, source)
	}
	for key, source := range e.Origin {
		s.Origin[key] = string(source)
	}
	return s
}

// missingCard says so where the configuration is for a card that is not there.
func missingCard(n config.Network, cards []Card) []status.Condition {
	if n.Interface == "" || has(cards, n.Interface) {
		return nil
	}
	names := make([]string, len(cards))
	for i, c := range cards {
		names[i] = c.Name + " (" + c.MAC + ")"
	}
	have := "this machine has none"
	if len(names) > 0 {
		have = "this machine has " + strings.Join(names, ", ")
	}
	return []status.Condition{{
		Code: "network-card-missing", Severity: "warning",
		Text:   fmt.Sprintf("the configuration is for network card %s, %s", n.Interface, have),
		Remedy: "correct network.interface where the configuration comes from, then reboot",
	}}
}
