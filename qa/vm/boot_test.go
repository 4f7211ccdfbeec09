// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/images/ova"
)

// TestBox is the life of one box imported from the OVA (its disk, vSphere's
// disk controller and network card), with Secure Boot on and only the bake's
// certificate enrolled: first boot, daily use, a killed daemon, a reboot, a
// disk that goes bad, power off. One machine serves all of it; the parts build
// on each other, so the first that fails ends the test.
func TestBox(t *testing.T) {
	b := newBox(t, filepath.Join(image.Dir, "signing.crt"))
	vmdk := filepath.Join(t.TempDir(), "disk.vmdk")
	err := ova.ExtractDisk(t.Context(), filepath.Join(image.Dir, image.Manifest.Name+"-"+image.Manifest.Version+".ova"), vmdk)
	if err != nil {
		t.Fatal(err)
	}
	if b.opts.Disk, err = OverlayOn(t.Context(), tree, vmdk, "vmdk", t.TempDir(), "imported", 0); err != nil {
		t.Fatal(err)
	}
	if b.opts.BootDisk, err = BootDisk(image, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	b.opts.DiskBus, b.opts.NIC = "pvscsi", "vmxnet3"
	b.start()
	b.complete(0, 1)
	var before facts
	for _, part := range []struct {
		name string
		run  func(*box)
	}{
		{"healthy", checkHealthy},
		{"budgets hold", checkLimits},
		{"root is sealed", checkSealed},
		{"secure boot is on", checkSecureBoot},
		{"pinned references resolve offline", checkReferences},
		{"guest book takes an entry", signBook},
		{"a killed daemon restarts nothing", killDaemon},
		{"reboot", func(b *box) { before = learn(b); reboot(b) }},
		{"healthy again", checkHealthy},
		{"entry is still there", checkBook},
		{"identity is kept", func(b *box) { before.compare(b, learn(b)) }},
		{"a good root scans clean", scanClean},
		{"a flipped byte is found", scanFlipped},
		{"power off", (*box).off},
	} {
		ok := t.Run(part.name, func(t *testing.T) {
			inner := *b
			inner.t, inner.ctx = t, t.Context()
			part.run(&inner)
		})
		if !ok {
			t.Fatalf("%q failed; the console's last words:\n%s", part.name, tail(b.Console.Text(), 40))
		}
	}
}

func checkHealthy(b *box) {
	b.t.Helper()
	code, page, err := b.get("/")
	if err != nil || code != 200 || !strings.Contains(page, "<html") {
		b.t.Errorf("the guest book answers %d, %v: %.200s", code, err, page)
	}
	r := b.report()
	m := image.Manifest
	want := status.Root{Hash: m.RootHash, Verified: true, ReadOnly: true}
	if r.Root != want {
		b.t.Errorf("root is %+v, want %+v", r.Root, want)
	}
	if r.Stack != "healthy" || r.Slot != "A" || r.Generation != 1 {
		b.t.Errorf("stack %q, slot %q, generation %d; want healthy, A, 1", r.Stack, r.Slot, r.Generation)
	}
	if r.Release.Name != m.Name || r.Release.Version != m.Version || r.Release.OS != m.OSVersion {
		b.t.Errorf("release %+v, the manifest says %s %s on %s", r.Release, m.Name, m.Version, m.OSVersion)
	}
	if len(r.Services) != 4 {
		b.t.Errorf("%d services, the demo has 4", len(r.Services))
	}
	for _, s := range r.Services {
		if s.State == "completed" {
			continue
		}
		if s.State != "running" || s.Health != "healthy" {
			b.t.Errorf("%s is %s, %s: %s", s.Name, s.State, s.Health, s.Reason)
		}
	}
	for _, c := range r.Conditions {
		if c.Severity != "info" {
			b.t.Errorf("condition %s: %s", c.Code, c.Text)
		}
	}
	if t := r.Timings; t.DaemonStarted <= 0 || t.ImagesLoaded < t.DaemonStarted || t.StackHealthy < t.ImagesLoaded {
		b.t.Errorf("timings %+v are not in order", t)
	}
	b.t.Logf("first to last, in seconds since the kernel started: %+v", r.Timings)
	if table := b.run("holdfast status"); !strings.Contains(table, "healthy") || !strings.Contains(table, "web") {
		b.t.Errorf("holdfast status prints %q", table)
	}
	if got := b.run("systemctl is-active boot-complete.target"); got != "active" {
		b.t.Errorf("boot-complete.target is %s", got)
	}
	if failed := b.run("systemctl --failed --no-legend --plain"); failed != "" {
		b.t.Errorf("failed units: %s", failed)
	}
}

func checkSealed(b *box) {
	if cmdline := b.run("cat /proc/cmdline"); !strings.Contains(cmdline, image.Manifest.RootHash) {
		b.t.Errorf("the kernel command line has another root hash: %s", cmdline)
	}
	if got := b.run("findmnt -no SOURCE,FSTYPE,OPTIONS /"); !strings.HasPrefix(got, "/dev/mapper/root squashfs ro") {
		b.t.Errorf("/ is %s", got)
	}
	table := b.run("dmsetup table --target verity root; dmsetup status root")
	if !strings.Contains(table, image.Manifest.RootHash) || !strings.HasSuffix(table, " V") {
		b.t.Errorf("device mapper says %s", table)
	}
	for _, path := range []string{"/x", "/etc/x", "/usr/x", "/etc/passwd"} {
		if out, code := b.try("echo x >> " + path); code == 0 {
			b.t.Errorf("%s can be written: %s", path, out)
		}
	}
	if out, code := b.try("mount -o remount,rw / && touch /x"); code == 0 {
		b.t.Errorf("/ can be made writable: %s", out)
	}
}

func checkSecureBoot(b *box) {
	// The variable's four bytes of attributes come before its one of value.
	if got := b.run("od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"); strings.TrimSpace(got) != "1" {
		b.t.Errorf("the firmware says SecureBoot = %s", got)
	}
	if got := b.run("cat /sys/kernel/security/lockdown"); strings.Contains(got, "[none]") {
		b.t.Errorf("the kernel is not locked down: %s", got)
	}
}

func checkReferences(b *box) {
	for _, s := range b.report().Services {
		if !strings.Contains(s.Image, "@sha256:") {
			b.t.Errorf("%s runs %s, which is not pinned", s.Name, s.Image)
			continue
		}
		b.run("docker image inspect " + s.Image)
	}
}

const entry = `{"author":"qa","message":"written before the reboot"}`

func signBook(b *box) {
	if code, text, err := b.ask(time.Minute, "POST", "/api/entries", entry); err != nil || code/100 != 2 {
		b.t.Fatalf("signing the book: %d, %v: %s", code, err, text)
	}
	checkBook(b)
}

func checkBook(b *box) {
	if code, text, err := b.get("/api/entries"); err != nil || code != 200 || !strings.Contains(text, "written before the reboot") {
		b.t.Fatalf("the book: %d, %v: %s", code, err, text)
	}
}

func killDaemon(b *box) {
	const running = `docker ps -q --no-trunc | xargs docker inspect --format '{{.Id}} {{.State.StartedAt}} {{.RestartCount}}' | sort`
	before := b.run(running)
	old := b.run("systemctl show -P MainPID holdfast.service")
	b.run("kill -9 " + old)
	b.run(fmt.Sprintf("holdfast wait-healthy --timeout %s", 4*time.Minute))
	if now := b.run("systemctl show -P MainPID holdfast.service"); now == old || now == "0" {
		b.t.Errorf("the daemon's pid was %s and is %s", old, now)
	}
	if after := b.run(running); after != before {
		b.t.Errorf("containers before:\n%s\nafter:\n%s", before, after)
	}
	if r := b.report(); r.Stack != "healthy" {
		b.t.Errorf("the stack is %s", r.Stack)
	}
}

// facts are what a reboot must not change.
type facts struct {
	machineID, address, client, boots, seed string
}

func learn(b *box) facts {
	return facts{
		machineID: b.run("cat /etc/machine-id"),
		address:   b.run("grep -h ^ADDRESS= /run/systemd/netif/leases/*"),
		client:    b.run("grep -h ^CLIENTID= /run/systemd/netif/leases/*"),
		boots:     b.run("journalctl --list-boots --quiet --no-pager | awk '{print $2}'"),
		seed:      b.run("stat -c %s /var/lib/systemd/random-seed; sha256sum < /var/lib/systemd/random-seed"),
	}
}

func (f facts) compare(b *box, now facts) {
	if f.seed == now.seed {
		b.t.Error("the random seed was not renewed")
	}
	if size, _, _ := strings.Cut(now.seed, "\n"); size == "0" {
		b.t.Error("the random seed is empty")
	}
	if !strings.HasPrefix(now.boots, f.boots+"\n") || len(strings.Fields(f.boots)) != 1 {
		b.t.Errorf("the journal knew the boots %q and now knows %q", f.boots, now.boots)
	}
	f.seed, now.seed, f.boots, now.boots = "", "", "", ""
	if f != now {
		b.t.Errorf("before the reboot %+v, after it %+v", f, now)
	}
}

func reboot(b *box) {
	mark := b.Console.Mark()
	b.try("systemctl reboot")
	b.complete(mark, 2)
}

func scanClean(b *box) {
	b.t.Log(b.run("holdfast doctor --scan-root"))
}

// scanFlipped damages a file of the root that no part of the test reads, while
// the box runs: only a scan of the whole root can find it.
func scanFlipped(b *box) {
	at, err := image.Locate("root-a", "usr/bin/localedef", "usr/bin/localectl", "usr/bin/systemd-analyze", "usr/bin/openssl")
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.FlipByte(b.ctx, image, at.Middle()); err != nil {
		b.t.Fatal(err)
	}
	out, code := b.try("holdfast doctor --scan-root")
	if code == 0 {
		b.t.Fatalf("the scan found nothing: %s", out)
	}
	part, err := image.Part("root-a")
	if err != nil {
		b.t.Fatal(err)
	}
	block := fmt.Sprint((at.Middle() - part.Offset) / 4096)
	if !strings.Contains(out, block) {
		b.t.Errorf("the scan does not name block %s: %s", block, out)
	}
	if !strings.Contains(b.Console.Text(), "device-mapper: verity: ") {
		b.t.Error("the console does not name dm-verity")
	}
	if r := b.report(); r.Root.Verified {
		b.t.Error("status still says that the root is verified")
	}
}
