// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

// commands notes what is run.
type commands struct {
	ran []string
	err error
}

func (c *commands) Run(_ context.Context, argv ...string) ([]byte, error) {
	c.ran = append(c.ran, strings.Join(argv, " "))
	return nil, c.err
}

// machine is a root with two cards and a bridge.
func machine(t *testing.T) (Env, *commands, *bytes.Buffer) {
	t.Helper()
	root := t.TempDir()
	slottest.Put(t, root, "proc/sys/kernel/hostname", "localhost\n")
	for name, c := range map[string]struct{ mac, device string }{
		"ens224": {"00:50:56:00:00:02", "sys/devices/pci0/13/net"}, "ens192": {"00:50:56:00:00:01", "sys/devices/pci0/0b/net"}, "docker0": {"02:42:00:00:00:01", ""},
	} {
		slottest.Put(t, root, "sys/class/net/"+name+"/address", c.mac+"\n")
		slottest.Put(t, root, "sys/class/net/"+name+"/type", "1\n")
		if c.device == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Join(root, c.device), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, c.device), filepath.Join(root, "sys/class/net", name, "device")); err != nil {
			t.Fatal(err)
		}
	}
	cmds, out := &commands{}, &bytes.Buffer{}
	return Env{Root: root, Run: cmds, Out: out}, cmds, out
}

const key1 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGgAk8rvGMv5a0Aq1bUqV5y6QSvL6SPOSbZsVqAzPJpU admin@example.com"

func whole() config.Effective {
	return config.Effective{Config: config.Config{
		Hostname: "box1",
		Network:  config.Network{Addresses: []string{"10.0.0.5/24"}, Gateways: []string{"10.0.0.1"}},
		DNS:      config.DNS{Servers: []string{"10.0.0.2"}}, NTP: []string{"10.0.0.3"},
		Admin: config.Admin{SSHKeys: []string{key1}}, TLS: config.TLS{Certificate: "C\n", Key: "K\n"},
		Proxy: config.Proxy{HTTP: "http://10.0.0.9:3128"},
	}}
}

func TestApply(t *testing.T) {
	env, cmds, out := machine(t)
	apply := func(e config.Effective) []string {
		t.Helper()
		cmds.ran = nil
		if err := Apply(t.Context(), env, e); err != nil {
			t.Fatal(err)
		}
		return cmds.ran
	}
	const settle = "udevadm settle --timeout=20"
	tell := func(units ...string) (all []string) {
		for _, u := range units {
			all = append(all, "systemctl --no-block "+u)
		}
		return all
	}
	const network, resolved, clock = "try-reload-or-restart systemd-networkd.service", "try-reload-or-restart systemd-resolved.service", "try-reload-or-restart systemd-timesyncd.service"
	if got, want := apply(whole()), append([]string{settle}, tell(network, resolved, clock, "start holdfast-sshd.service")...); !slices.Equal(got, want) {
		t.Errorf("first time: ran %q, want %q", got, want)
	}
	for name, want := range map[string]string{
		"proc/sys/kernel/hostname": "box1\n", "run/holdfast/hostname": "box1\n", "run/holdfast/ssh/authorized_keys": key1 + "\n",
		"run/holdfast/tls/tls.crt": "C\n", "run/holdfast/tls/tls.key": "K\n",
	} {
		if got, err := os.ReadFile(filepath.Join(env.Root, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]os.FileMode{
		"run/holdfast": 0o755, "run/holdfast/tls": 0o700, "run/holdfast/tls/tls.key": 0o600, "run/holdfast/ssh": 0o700, "run/holdfast/ssh/authorized_keys": 0o600,
		"run/holdfast/proxy.env": 0o600, "run/systemd/network/10-holdfast.network": 0o644, "var/lib/holdfast/ssh": 0o700, "var/lib/holdfast/ssh/ssh_host_ed25519_key": 0o600,
	} {
		if st, err := os.Stat(filepath.Join(env.Root, name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want mode %v", name, st, err, want)
		}
	}
	// The second card has the lower name and the higher place.
	if net, _ := os.ReadFile(env.path(networkPath)); !strings.Contains(string(net), "MACAddress=00:50:56:00:00:01\n") {
		t.Errorf("the address is not on the first card:\n%s", net)
	}
	for _, line := range []string{"holdfast: host name box1\n", "holdfast: network: 00:50:56:00:00:01 10.0.0.5/24, gateway 10.0.0.1\n", "holdfast: admin access by ssh is on, 1 key\n", "holdfast: the ssh host key was made, SHA256:"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("the console lacks %q:\n%s", line, out)
		}
	}
	hostKey, err := os.ReadFile(env.path(hostKeyPath))
	if err != nil {
		t.Fatal(err)
	}

	out.Reset()
	if got := apply(whole()); !slices.Equal(got, []string{settle}) || out.Len() > 0 {
		t.Errorf("nothing changed, but it ran %q and said %q", got, out)
	}
	e := whole()
	e.Config.NTP = nil
	if got := apply(e); !slices.Equal(got[1:], tell(network, clock)) {
		t.Errorf("without time servers: ran %q", got)
	}
	e.Config = config.Config{Network: config.Network{DHCP: true}}
	if got := apply(e); !slices.Equal(got, tell(network, resolved, "stop holdfast-sshd.service")) {
		t.Errorf("all taken away: ran %q", got)
	}
	for _, name := range []string{networkPath, otherPath, resolvedPath, timePath, ProxyEnv, TLSCertificate, TLSKey, keysPath, hostnamePath} {
		if _, err := os.Lstat(env.path(name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	apply(whole())
	if again, err := os.ReadFile(env.path(hostKeyPath)); err != nil || !bytes.Equal(again, hostKey) {
		t.Errorf("the host key was made anew: %v", err)
	}
}

// TestApplyGoesOn: what fails does not take the rest with it.
func TestApplyGoesOn(t *testing.T) {
	env, cmds, _ := machine(t)
	slottest.Put(t, env.Root, hostKeyPath, "damaged")
	cmds.err = errors.New("no bus")
	err := Apply(t.Context(), env, whole())
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"admin access stays off", "is no ssh host key", "restore it", "no bus"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
	if _, err := os.Stat(env.path(keysPath)); err == nil {
		t.Error("keys were put in place without a host key")
	}
	for _, name := range []string{networkPath, TLSKey, timePath} {
		if _, err := os.Stat(env.path(name)); err != nil {
			t.Error(err)
		}
	}
	if got, err := os.ReadFile(env.path(hostKeyPath)); err != nil || string(got) != "damaged" {
		t.Errorf("the damaged key was replaced: %q, %v", got, err)
	}
}

func TestLook(t *testing.T) {
	env, _, _ := machine(t)
	v := Look(env.Root)
	if len(v.Conditions) != 1 || v.Conditions[0].Code != "config-unread" || v.Conditions[0].Remedy == "" || v.Hostname != "" || v.SSH.Enabled {
		t.Errorf("before there is a configuration: %+v", v)
	}
	e := whole()
	e.Platform = "vmware"
	e.Config.Network.Interface = "eth5"
	e.Origin = map[string]config.Source{"network": config.FromOVF}
	e.Sources = []config.SourceState{{Source: config.FromOVF, Where: "OVF environment", State: config.Applied}}
	if err := e.Save(env.Root); err != nil {
		t.Fatal(err)
	}
	if err := Apply(t.Context(), env, e); err != nil {
		t.Fatal(err)
	}
	v = Look(env.Root)
	if v.Hostname != "box1" || v.Platform != "vmware" || !v.SSH.Enabled || len(v.SSH.Keys) != 1 || !strings.HasPrefix(v.SSH.HostKey, "SHA256:") {
		t.Errorf("%+v", v)
	}
	if v.Config.Origin["network"] != "ovf" || len(v.Config.Sources) != 1 || v.Config.Sources[0].State != "applied" {
		t.Errorf("%+v", v.Config)
	}
	if len(v.Conditions) != 1 || v.Conditions[0].Code != "network-card-missing" || !strings.Contains(v.Conditions[0].Text, "ens192 (00:50:56:00:00:01), ens224") {
		t.Errorf("%+v", v.Conditions)
	}
}

// TestWatch: the kernel tells of a change; the first call needs none.
func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := Watch(ctx, func() { calls++; cancel() })
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestShown(t *testing.T) {
	for address, want := range map[string]bool{
		"10.0.0.5": true, "169.254.0.15": true, "127.0.0.1": false, "2001:db8::5": true, "fd00::5": true, "fe80::1": false, "fec0::1": false, "::1": false, "ff02::1": false,
	} {
		if got := shown(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}
