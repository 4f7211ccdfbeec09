// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/images/esp"
	"github.com/holdfast/holdfast/qa/upgrade"
)

// TestUpgradeRows are the other ways in which an upgrade can end, each on a
// box of its own that begins with the base.
func TestUpgradeRows(t *testing.T) {
	rows := []struct {
		name  string
		specs []upgrade.Spec
		run   func(*upgradeBox)
	}{
		{"init hangs", []upgrade.Spec{upgrade.Hang}, func(b *upgradeBox) { b.rollsBack(upgrade.Hang, "1.0.0", "") }},
		{"supervisor crashes in a loop", []upgrade.Spec{upgrade.CrashLoop}, func(b *upgradeBox) { b.rollsBack(upgrade.CrashLoop, "1.0.0", "") }},
		{"state does not mount", []upgrade.Spec{upgrade.NoState}, func(b *upgradeBox) { b.rollsBack(upgrade.NoState, "1.0.0", "") }},
		{"migration fails", []upgrade.Spec{upgrade.NoMigration}, func(b *upgradeBox) { b.rollsBack(upgrade.NoMigration, "1.0.0", "migrate") }},
		{"migration works, then web fails", []upgrade.Spec{upgrade.AppFails}, func(b *upgradeBox) { b.rollsBack(upgrade.AppFails, "1.0.0", "web") }},
		{"disk filled during fetch", []upgrade.Spec{upgrade.Next}, diskFilled},
		{"orderly reboot during trial", []upgrade.Spec{upgrade.Next}, orderlyReboot},
		{"lost power in each step", []upgrade.Spec{upgrade.Next}, cutInSteps},
		{"database at 60% of its budget", []upgrade.Spec{upgrade.StackOnly, upgrade.Unhealthy}, budgetHolds},
		{"anonymous volumes", []upgrade.Spec{upgrade.Anonymous, upgrade.AnonymousFails}, anonymousVolumes},
		{"another Docker", []upgrade.Spec{upgrade.Docker, upgrade.DockerFails}, otherDocker},
		{"bundle on a second disk", []upgrade.Spec{upgrade.StackOnly}, fromBundle},
	}
	if !soak {
		for _, r := range rows {
			t.Run(r.name, func(t *testing.T) { t.Skip("left out: only in `make soak`") })
		}
		return
	}
	var all []upgrade.Spec
	for _, r := range rows {
		all = append(all, r.specs...)
	}
	u := newUpgrades(t, all...)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := u.newBox(t, r.specs...)
			if r.name == "bundle on a second disk" {
				b.addBundle(r.specs[0])
			}
			b.up()
			r.run(b)
			b.off()
		})
	}
}

// orderlyReboot: who reboots the box during a trial does not judge it.
func orderlyReboot(b *upgradeBox) {
	b.note("written before the reboot of the trial")
	p := b.poll()
	b.begin(upgrade.Next.Version)
	b.trialBoot()
	b.try("systemctl reboot")
	b.next()
	row := b.ended(1)
	b.wantRow(row, "upgrade", "demo 1.1.0", "committed")
	b.healthy("1.1.0")
	b.kept(p.Stop())
	b.wantData("1.1.0", 2, written, "written before the reboot of the trial")
	b.settled()
}

// diskFilled: state is full while a release is fetched. That ends the fetch
// with its reason and nothing else; with room again it goes on where it was.
func diskFilled(b *upgradeBox) {
	before := b.record()
	b.server.Limit(64 << 10)
	b.begin(upgrade.Next.Version)
	b.until(upgradeTime, "the fetch to have begun", "holdfast status --json", func(out string, _ int) bool {
		return strings.Contains(out, `"fetching"`)
	})
	b.run(`f=/var/lib/holdfast/fill; free=$(df -B1 --output=avail /var/lib/holdfast | tail -n1); fallocate -l "$free" $f || dd if=/dev/zero of=$f bs=1M 2>/dev/null; sync; df -B1 /var/lib/holdfast`)
	b.server.Limit(0)
	out := b.until(upgradeTime, "the upgrade to have ended", "cat /run/test-upgrade.log; systemctl is-active 'test-upgrade-*' || echo ended", func(out string, _ int) bool {
		return strings.Contains(out, "ended")
	})
	b.t.Logf("with a full disk: %s", out)
	b.healthy("1.0.0")
	b.wantData("1.0.0", 1, written)
	rows := len(b.history())
	if rec := b.settled(); rec.Committed != before.Committed && rec.Committed.Release != "demo 1.1.0" {
		b.t.Errorf("committed is %+v", rec.Committed)
	}
	b.run("rm /var/lib/holdfast/fill")
	b.begin(upgrade.Next.Version)
	row := b.ended(rows + 1)
	b.wantRow(row, "upgrade", "demo 1.1.0", "committed")
	b.wantData("1.1.0", 2, written)
	b.settled()
}

// cutInSteps ends the machine in each step that the status names, and wants
// the old or the new one, and that the next try works.
func cutInSteps(b *upgradeBox) {
	seen := map[string]bool{}
	for range 12 {
		rows := len(b.history())
		b.begin(upgrade.Next.Version, "--force")
		b.until(upgradeTime, "a step that was not cut yet", `holdfast status --json`, func(out string, code int) bool {
			r := parseState(out)
			if r == "" || r == "idle" || seen[r] {
				return len(b.historyNow()) > rows
			}
			seen[r] = true
			b.t.Logf("cut while %s", r)
			b.Kill()
			b.start()
			b.next()
			return true
		})
		b.healthy("")
		rec := b.record()
		if rec.Committed.Release == "demo 1.1.0" {
			b.wantData("1.1.0", 2, written)
			break
		}
		b.wantData("1.0.0", 1, written)
	}
	b.t.Logf("cut in the steps %v", seen)
	b.settled()
}

// anonymousVolumes: what a service keeps in a volume without a name goes back
// too.
func anonymousVolumes(b *upgradeBox) {
	b.begin(upgrade.Anonymous.Version)
	b.wantRow(b.ended(1), "upgrade", "demo 1.4.0", "committed")
	const volume = `docker inspect "$(docker ps -q --filter label=com.docker.compose.service=web)" --format '{{range .Mounts}}{{if eq .Destination "/scratch"}}{{.Source}}{{end}}{{end}}'`
	b.run(`v=$(` + volume + `) && test -n "$v" && echo before > "$v/note"`)
	b.rollsBack(upgrade.AnonymousFails, "1.4.0", "web")
	if got := b.run(`cat "$(` + volume + `)/note"`); got != "before" {
		b.t.Errorf("the anonymous volume has %q", got)
	}
}

// otherDocker: an engine of another version gets a store of its own, and the
// old one finds its own as it was.
func otherDocker(b *upgradeBox) {
	const stores = "ls /var/lib/holdfast/engines"
	before := b.run(stores)
	b.rollsBack(upgrade.DockerFails, "1.0.0", "web")
	if now := b.run(stores); now != before {
		b.t.Errorf("stores of engines: %q, and %q after rolling back", before, now)
	}
	b.begin(upgrade.Docker.Version)
	b.wantRow(b.ended(2), "upgrade", "demo 1.3.0", "committed")
	b.healthy("1.3.0")
	if now := b.run(stores); !strings.Contains(now, strings.TrimSpace(upgrade.Docker.Engine)) {
		b.t.Errorf("stores of engines: %q", now)
	}
	b.behind("holdfast rollback")
	b.wantRow(b.ended(3), "rollback", "demo 1.0.0", "committed")
	b.healthy("1.0.0")
	b.wantData("1.0.0", 1, written)
	b.settled()
}

// budgetHolds: a volume at 60% of its budget is rewritten while a snapshot of
// it is kept, without an error; the budget is the same before, meanwhile,
// after a commit and after a rollback, and what is told of it is what du says.
func budgetHolds(b *upgradeBox) {
	const budget = 2 << 10 // MiB, as the demo's Compose file has it
	volume := b.run(`docker inspect "$(docker ps -q --filter label=com.docker.compose.service=db)" --format '{{range .Mounts}}{{if eq .Destination "/var/lib/postgresql/data"}}{{.Source}}{{end}}{{end}}'`)
	used := func() int {
		n, err := strconv.Atoi(strings.Fields(b.run("du -sm --apparent-size " + volume))[0])
		if err != nil {
			b.t.Fatal(err)
		}
		return n
	}
	fill := budget*60/100 - used()
	write := func(pattern string) {
		b.t.Helper()
		start := time.Now()
		b.run(fmt.Sprintf(`tr '\0' '%s' < /dev/zero | dd of=%s/rewritten bs=1M count=%d iflag=fullblock conv=notrunc,fsync 2>&1`, pattern, volume, fill))
		b.t.Logf("wrote %d MiB in %.0f s", fill, time.Since(start).Seconds())
	}
	check := func(when string) {
		b.t.Helper()
		b.t.Logf("%s: du says %d MiB\n%s", when, used(), b.run("holdfast status"))
		room := budget - used()
		if out, code := b.try(fmt.Sprintf("dd if=/dev/zero of=%s/toomuch bs=1M count=%d 2>&1; e=$?; rm -f %s/toomuch; sync; exit $e", volume, room+64, volume)); code == 0 {
			b.t.Errorf("%s: 64 MiB more than the budget could be written: %s", when, out)
		}
		if out, code := b.try(fmt.Sprintf("dd if=/dev/zero of=%s/fits bs=1M count=%d 2>&1; e=$?; rm -f %s/fits; sync; exit $e", volume, room-64, volume)); code != 0 {
			b.t.Errorf("%s: 64 MiB less than the budget could not be written: %s", when, out)
		}
	}
	write("a")
	check("before")
	b.begin(upgrade.StackOnly.Version)
	b.wantRow(b.ended(1), "upgrade", "demo 1.0.1", "committed")
	write("b")
	check("with a kept snapshot")
	b.rollsBack(upgrade.Unhealthy, "1.0.1", "web")
	write("c")
	check("after a failed trial")
	b.behind("holdfast rollback")
	b.wantRow(b.ended(3), "rollback", "demo 1.0.0", "committed")
	if got := b.run("head -c 1 " + volume + "/rewritten"); got != "a" {
		b.t.Errorf("after the rollback the data are those of %q", got)
	}
	write("d")
	check("after a rollback by hand")
	b.settled()
}

// parseState is the state in `holdfast status --json`, "" where there is none.
func parseState(out string) string {
	var r status.Report
	if json.Unmarshal([]byte(out), &r) != nil || r.Upgrade == nil {
		return ""
	}
	return r.Upgrade.State
}

// historyNow is the history where the daemon answers, none else.
func (b *upgradeBox) historyNow() []status.UpgradeResult {
	out, code, ok := b.ask(time.Minute, "holdfast history --json")
	if !ok || code != 0 {
		return nil
	}
	return parseHistory(b.t, out)
}

// addBundle attaches a disk with a bundle of a release.
func (b *upgradeBox) addBundle(s upgrade.Spec) {
	b.t.Helper()
	dir := b.t.TempDir()
	bundle, raw, disk := filepath.Join(dir, "bundle"), filepath.Join(dir, "stick.raw"), filepath.Join(dir, "stick.qcow2")
	if err := b.u.vendor.Bundle(b.ctx, b.depot, bundle, b.u.baked[s.Version]); err != nil {
		b.t.Fatal(err)
	}
	data, err := os.ReadFile(bundle)
	if err != nil {
		b.t.Fatal(err)
	}
	f, err := os.Create(raw)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	const size = 1 << 30
	if err := errors.Join(f.Truncate(size), esp.Write(f, size, []esp.File{{Path: "demo.bundle", Data: data}}, 1, time.Unix(1795266971, 0))); err != nil {
		b.t.Fatal(err)
	}
	if _, err := tree.run(b.ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk); err != nil {
		b.t.Fatal(err)
	}
	b.opts.Disks = append(b.opts.Disks, ExtraDisk{Path: disk, Serial: "stick"})
}

// fromBundle upgrades without any network.
func fromBundle(b *upgradeBox) {
	b.server.Break(true)
	b.run("mkdir /run/stick && mount -o ro /dev/disk/by-id/virtio-stick /run/stick")
	b.behind("holdfast upgrade /run/stick/demo.bundle")
	b.wantRow(b.ended(1), "upgrade", "demo 1.0.1", "committed")
	b.healthy("1.0.1")
	b.wantData("1.0.0", 1, written)
	b.settled()
	b.run("umount /run/stick")
}
