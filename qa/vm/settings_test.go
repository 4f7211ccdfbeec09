// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestSettings is a box that gets its configuration from the hypervisor: a
// name, a fixed address and one admin's key. The address is the one that the
// emulator forwards to, so that whatever answers came over it. Its engine then
// has to bear what qa/engine's tests do to one.
func TestSettings(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t, "")
	b.opts.Forward = []int{80, 22}
	b.opts.Credentials = map[string]string{"holdfast.config": `hostname: box1.example.com
network:
  addresses: [10.0.2.15/24]
  gateways: [10.0.2.2]
dns: {servers: [10.0.2.3], search: [example.com]}
ntp: [10.0.2.2]
proxy: {http: "http://user:geheim@10.0.2.2:3128"}
admin:
  ssh_keys:
    - ` + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line))) + " admin@example.com\n"}
	b.start()
	b.complete(0, 1)
	checkHealthy(b)
	checkSettings(b)
	checkLogin(b, signer)
	checkAnnounced(b)
	checkShown(b)
	for _, part := range []struct {
		name string
		run  func(*box)
		soak bool
	}{
		{"engine tests", checkEngineTests, false}, {"a killed or hung engine", checkMended, false}, {"the clock jumps", checkClock, true},
	} {
		if part.soak && !soak {
			t.Logf("%s: left out, make soak runs it", part.name)
			continue
		}
		t.Run(part.name, func(t *testing.T) {
			inner := *b
			inner.t, inner.ctx = t, t.Context()
			part.run(&inner)
		})
	}
	b.off()
}

func checkSettings(b *box) {
	for _, row := range []struct{ command, want string }{
		{"hostname", "box1.example.com"},
		{"cat /etc/hostname", "box1.example.com"},
		{"getent hosts box1.example.com", "box1.example.com"},
		{"ip -br -4 address show scope global dev $(ls /sys/class/net | grep ^en)", "10.0.2.15/24"},
		{"ip -4 route show default", "via 10.0.2.2 "},
		{"resolvectl dns", "Global: 10.0.2.3"},
		{"resolvectl domain", "Global: example.com"},
		{"timedatectl show-timesync -p SystemNTPServers", "10.0.2.2"},
		{"systemctl show -P EnvironmentFiles docker.service", "/run/holdfast/proxy.env"},
		{"stat -c '%a %U' /run/holdfast/config.json /run/holdfast/proxy.env /run/holdfast/ssh/authorized_keys /var/lib/holdfast/ssh/ssh_host_ed25519_key | sort -u", "600 root"},
		{"systemctl is-active holdfast-sshd.service holdfast-screen.service | sort -u", "active"},
		{"systemctl is-active open-vm-tools.service ssh.service || true", "inactive\ninactive"},
	} {
		if got := b.run(row.command); !strings.Contains(got, row.want) {
			b.t.Errorf("`%s` says %q, want %q", row.command, got, row.want)
		}
	}
	if out := b.run("systemd-analyze verify --man=no default.target 2>&1; journalctl -b -g 'ordering cycle' -o cat || true"); out != "" && out != "-- No entries --" {
		b.t.Errorf("systemd says of the units: %s", out)
	}
	if leases := b.run("ls /run/systemd/netif/leases"); leases != "" {
		b.t.Errorf("a box with a fixed address has the DHCP leases %s", leases)
	}
	r := b.report()
	if r.Hostname != "box1.example.com" || r.Platform != "qemu" || len(r.Addresses) == 0 || r.Addresses[0].Address != "10.0.2.15" || r.Addresses[0].Prefix != 24 {
		b.t.Errorf("status says host %q, platform %q, addresses %+v", r.Hostname, r.Platform, r.Addresses)
	}
	if len(r.URLs) == 0 || r.URLs[0] != "http://10.0.2.15/" || r.Config.Origin["network"] != "smbios" {
		b.t.Errorf("status says urls %q, configuration %+v", r.URLs, r.Config)
	}
}

// checkLogin comes in from outside, as the admin and as somebody else.
func checkLogin(b *box, signer ssh.Signer) {
	r := b.report()
	if !r.SSH.Enabled || len(r.SSH.Keys) != 1 || r.SSH.Keys[0] != ssh.FingerprintSHA256(signer.PublicKey()) {
		b.t.Fatalf("status says of ssh %+v", r.SSH)
	}
	seen := ""
	login := func(user string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
		ctx := b.within(time.Minute, "ssh to the box")
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.Addr(22))
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		c, chans, reqs, err := ssh.NewClientConn(conn, "box1", &ssh.ClientConfig{User: user, Auth: auth,
			HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error { seen = ssh.FingerprintSHA256(key); return nil }})
		if err != nil {
			conn.Close()
			return nil, err
		}
		return ssh.NewClient(c, chans, reqs), nil
	}
	c, err := login("root", ssh.PublicKeys(signer))
	if err != nil {
		b.t.Fatalf("root with the configured key: %v", err)
	}
	defer c.Close()
	if seen != r.SSH.HostKey {
		b.t.Errorf("the box shows host key %s, status announces %s", seen, r.SSH.HostKey)
	}
	for command, want := range map[string]string{
		"id -un; echo $HOME":                  "root\n/root\n",
		"bash -lc 'true' 2>&1":                "",
		"holdfast status --check > /dev/null": "",
	} {
		s, err := c.NewSession()
		if err != nil {
			b.t.Fatal(err)
		}
		out, err := s.CombinedOutput(command)
		if err != nil || string(out) != want {
			b.t.Errorf("`%s` over ssh: %v, %q, want %q", command, err, out, want)
		}
		s.Close()
	}
	if _, err := c.Dial("tcp", "127.0.0.1:80"); err == nil {
		b.t.Error("ssh forwards ports")
	}
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	stranger, err := ssh.NewSignerFromKey(other)
	if err != nil {
		b.t.Fatal(err)
	}
	answers := ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
		return make([]string, len(questions)), nil
	})
	for who, try := range map[string]func() (*ssh.Client, error){
		"root with an empty password": func() (*ssh.Client, error) { return login("root", ssh.Password("")) },
		"root with a password":        func() (*ssh.Client, error) { return login("root", ssh.Password("root"), answers) },
		"root with another key":       func() (*ssh.Client, error) { return login("root", ssh.PublicKeys(stranger)) },
		"root with nothing":           func() (*ssh.Client, error) { return login("root") },
		"another user with the key":   func() (*ssh.Client, error) { return login("daemon", ssh.PublicKeys(signer)) },
	} {
		if c, err := try(); err == nil {
			c.Close()
			b.t.Errorf("%s gets in", who)
		} else if !strings.Contains(err.Error(), "unable to authenticate") {
			b.t.Errorf("%s: %v", who, err)
		}
	}
}

// checkAnnounced reads what a person sees without logging in: the serial
// console, and the screen as the kernel holds it.
func checkAnnounced(b *box) {
	r := b.report()
	name := fmt.Sprintf("box1.example.com (%s %s)", r.Release.Name, r.Release.Version)
	for _, want := range []string{
		"holdfast: " + name + ": http://10.0.2.15/ starting\n",
		"holdfast: " + name + ": http://10.0.2.15/ healthy\n",
		"holdfast: admin access: ssh root@10.0.2.15, host key " + r.SSH.HostKey + "\n",
	} {
		if !strings.Contains(b.Console.Text(), want) {
			b.t.Errorf("the console lacks %q", want)
		}
	}
	if strings.Contains(b.Console.Text(), "geheim") {
		b.t.Error("the console has the proxy's password")
	}
	screen := b.run("fold -w 80 /dev/vcs1")
	for _, want := range []string{r.Release.Name + " " + r.Release.Version + " on box1.example.com", "http://10.0.2.15/", "healthy", r.SSH.HostKey, "SERVICE"} {
		if !strings.Contains(screen, want) {
			b.t.Errorf("the screen lacks %q:\n%s", want, screen)
		}
	}
}

func checkShown(b *box) {
	shown := b.run("holdfast config")
	if !strings.Contains(shown, "box1.example.com") || !strings.Contains(shown, "10.0.2.15/24") || strings.Contains(shown, "geheim") {
		b.t.Errorf("holdfast config shows\n%s", shown)
	}
}
