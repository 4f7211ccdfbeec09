// SPDX-License-Identifier: Apache-2.0

// Package ingress decides who may reach the services: during a trial nobody
// from outside. It keeps one nftables table of its own, for IPv4 and IPv6, at
// the priority raw: before connections are tracked and before the engine's
// rules send published ports to containers. No other table is touched, and
// nothing else of the ruleset is read.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/images/durable"
)

const (
	// Table is the name of our table, of the family inet.
	Table = "holdfast_ingress"
	// closedFile and openFile are baked: what is loaded before the network
	// comes up, and what takes the table away.
	closedFile = "/usr/lib/holdfast/ingress-closed.nft"
	openFile   = "/usr/lib/holdfast/ingress-open.nft"
	// portsFile is written where the ports are known.
	portsFile = "/run/holdfast/ingress.nft"

	// ephemeral is where Linux takes the ports of its own questions from
	// (net.ipv4.ip_local_port_range): answers come to those.
	ephemeral = 32768
	// ssh is the admins' way in.
	ssh = 22
	// maxPorts bounds a list.
	maxPorts = 4096
)

// Runner runs one command to its end and gives its standard output.
type Runner interface {
	Run(ctx context.Context, argv ...string) ([]byte, error)
}

// Env is where the box is.
type Env struct {
	// Root goes before every path that this package reads or writes; "" on a
	// box.
	Root string
	Run  Runner
}

func (e Env) path(name string) string { return filepath.Join("/", e.Root, name) }

// Ports are what the rules differ by.
type Ports struct {
	// Admin are TCP ports that stay open besides 22, such as that of metrics.
	Admin []int
	// UDP are the published UDP ports of the stack. nil means that they are
	// not known: then all below 32768 are closed but those of DHCP.
	UDP []int
}

// Close keeps new connections from outside away from everything but the admin
// ports. When it returns none gets in. Connections that are open stay so. To
// close again with other ports is one change: there is no moment between.
func Close(ctx context.Context, env Env, p Ports) error {
	text, err := Rules(p)
	if err != nil {
		return err
	}
	name := env.path(portsFile)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := durable.WriteFile(name, []byte(text), 0o644); err != nil {
		return err
	}
	if _, err := env.Run.Run(ctx, "nft", "--file", portsFile); err != nil {
		return fmt.Errorf("ingress cannot be closed: %w", err)
	}
	return nil
}

// Open lets everybody in again. It is no error when all were let in before.
func Open(ctx context.Context, env Env) error {
	if _, err := env.Run.Run(ctx, "nft", "--file", openFile); err != nil {
		return fmt.Errorf("ingress cannot be opened: %w", err)
	}
	return nil
}

// Boot opens what was closed before the network came up, where the committed
// generation runs and no trial is on. Whatever cannot be told leaves it
// closed; the supervisor opens it then, or says why not.
func Boot(ctx context.Context, env Env) error {
	r, err := slot.Running(env.Root)
	if err != nil {
		return fmt.Errorf("ingress stays closed: %w", err)
	}
	rec, err := slot.Load(env.Root)
	if slot.Missing(err) {
		// The first boot: the only generation there is runs.
		if there, err := stateMounted(env); err != nil || !there {
			return errors.Join(errors.New("ingress stays closed: state is not mounted, so it is not known what is committed"), err)
		}
		return Open(ctx, env)
	}
	if err != nil {
		return fmt.Errorf("ingress stays closed: %w", err)
	}
	_, trial, err := slot.Choose(rec, r)
	switch {
	case err != nil:
		return fmt.Errorf("ingress stays closed: %w", err)
	case trial || rec.Trial != nil:
		// What becomes of a trial is the supervisor's to find out.
		return nil
	}
	return Open(ctx, env)
}

// stateMounted says whether the record can be there at all.
func stateMounted(env Env) (bool, error) {
	data, err := os.ReadFile(env.path("proc/self/mountinfo"))
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(data)) {
		// proc(5): id parent major:minor root mountpoint options ...
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/var" {
			return true, nil
		}
	}
	return false, nil
}

// Rules is the table as nft reads it. The first two lines make it empty,
// whether or not it was there, and nft takes a file as a whole or not at all.
func Rules(p Ports) (string, error) {
	admin, err := list(append([]int{ssh}, p.Admin...))
	if err != nil {
		return "", err
	}
	udp := fmt.Sprintf("udp dport != { 68, 546 } udp dport < %d drop", ephemeral)
	if p.UDP != nil {
		ports, err := list(p.UDP)
		if err != nil {
			return "", err
		}
		if udp = ""; ports != "" {
			udp = "udp dport { " + ports + " } drop"
		}
	}
	var b strings.Builder
	b.WriteString("table inet " + Table + "\ndelete table inet " + Table + "\n")
	b.WriteString("table inet " + Table + " {\n\tchain prerouting {\n\t\ttype filter hook prerouting priority raw; policy accept;\n")
	for _, rule := range []string{
		`iifname "lo" accept`, `iifname "docker*" accept`, `iifname "br-*" accept`,
		"tcp dport { " + admin + " } accept",
		"tcp flags & (syn | ack) == syn drop",
		udp,
		"meta l4proto { sctp, dccp, udplite } drop",
	} {
		if rule != "" {
			b.WriteString("\t\t" + rule + "\n")
		}
	}
	b.WriteString("\t}\n}\n")
	return b.String(), nil
}

// list writes ports, each once, in order.
func list(ports []int) (string, error) {
	if len(ports) > maxPorts {
		return "", errors.New("too many ports for the rules of ingress")
	}
	ports = slices.Compact(slices.Sorted(slices.Values(ports)))
	var out []string
	for _, p := range ports {
		if p < 1 || p > 65535 {
			return "", fmt.Errorf("%d is no port", p)
		}
		out = append(out, fmt.Sprint(p))
	}
	return strings.Join(out, ", "), nil
}
