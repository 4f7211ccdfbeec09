// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/qa/upgrade"
)

// TestUpgrade is the life of one box over several releases, with a client
// outside that asks ten times a second and writes now and then: a good
// upgrade with another system and schema, rollback by hand, a release of the
// stack alone, one whose web is never healthy, one whose kernel panics, lost
// power during a trial. The parts build on each other.
func TestUpgrade(t *testing.T) {
	u := newUpgrades(t, upgrade.Quick...)
	b := u.newBox(t, upgrade.Quick...)
	b.up()
	b.part("1.0.0 is as it was left", func(b *upgradeBox) {
		b.healthy("1.0.0")
		b.wantData("1.0.0", 1, written)
	})
	b.part("upgrade to 1.1.0", upgradeOS)
	b.part("rollback by hand", rollbackByHand)
	b.part("1.0.1 changes the stack alone", upgradeStack)
	b.part("1.1.1 is never healthy", func(b *upgradeBox) {
		b.rollsBack(upgrade.Unhealthy, "1.0.1", "web")
		b.refused(upgrade.Unhealthy, "quarantine")
	})
	b.part("1.2.0 panics", func(b *upgradeBox) { b.rollsBack(upgrade.Panic, "1.0.1", "") })
	b.part("power is lost during the trial of 1.1.0", powerCutInTrial)
	b.part("power off", func(b *upgradeBox) { b.off() })
}

// written is what signBook wrote at the first boot.
const written = "written before the reboot"

// note is an entry written by hand.
func (b *upgradeBox) note(text string) {
	b.t.Helper()
	code, out, err := b.box.ask(time.Minute, http.MethodPost, "/api/entries", fmt.Sprintf(`{"author":"qa","message":%q}`, text))
	if err != nil || code/100 != 2 {
		b.t.Fatalf("signing the book: %d, %v: %s", code, err, out)
	}
}

// wantData checks what web is, which schema its data have, and which entries
// are there; those that begin with "-" must not be.
func (b *upgradeBox) wantData(web string, schema int, entries ...string) {
	b.t.Helper()
	_, text, _ := b.fetch("/version")
	var v struct {
		Version string `json:"version"`
		Schema  int    `json:"schema"`
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil || v.Version != web || v.Schema != schema {
		b.t.Errorf("web says %s (%v), want %s with schema %d", text, err, web, schema)
	}
	book := b.book()
	for _, e := range entries {
		want := !strings.HasPrefix(e, "-")
		if e = strings.TrimPrefix(e, "-"); slices.Contains(book, e) != want {
			b.t.Errorf("the entry %q is there: %v, want %v", e, !want, want)
		}
	}
}

// book are the messages of all entries.
func (b *upgradeBox) book() (messages []string) {
	b.t.Helper()
	code, text, _ := b.fetch("/api/entries?limit=500")
	var answer struct {
		Entries []struct {
			Message string `json:"message"`
		} `json:"entries"`
	}
	if err := json.Unmarshal([]byte(text), &answer); code != http.StatusOK || err != nil {
		b.t.Fatalf("the book: %d, %v: %s", code, err, text)
	}
	for _, e := range answer.Entries {
		messages = append(messages, e.Message)
	}
	return messages
}

// poll begins to look at the box from outside.
func (b *upgradeBox) poll() *upgrade.Poller {
	machine := b.Machine
	return upgrade.Poll(b.ctx, func() string { return machine.Addr(80) }, "/api/entries?limit=1")
}

// kept fails where an entry that was acknowledged is not in the book.
func (b *upgradeBox) kept(seen upgrade.Seen) {
	b.t.Helper()
	book := b.book()
	for _, e := range seen.Written() {
		if !slices.Contains(book, e) {
			b.t.Errorf("the entry %s was acknowledged and is lost", e)
		}
	}
}

// kernels lists the kernel images on the ESP: "SHA256  FOLDER/NAME" lines. The
// daemon's own lock keeps it off the partition meanwhile.
func (b *upgradeBox) kernels() string {
	b.t.Helper()
	return b.run(`flock /run/holdfast/esp.lock sh -c 'd=$(mktemp -d) && mount -o ro "$(blkid -t PARTLABEL=esp -o device | head -n1)" $d && cd $d/EFI && find Linux holdfast -name "*.efi" 2>/dev/null | sort | xargs sha256sum; cd /; umount $d; rmdir $d'`)
}

// settled waits until nothing is on its way and what nobody needs is gone.
func (b *upgradeBox) settled() slot.Record {
	b.t.Helper()
	b.until(bootTime, "the state idle", "holdfast status --json", func(out string, _ int) bool { return parseState(out) == "idle" })
	rec := b.record()
	if rec.Trial != nil {
		b.t.Errorf("the record has a trial: %+v", *rec.Trial)
	}
	want := []string{rec.Committed.Data}
	if rec.Kept != nil {
		want = append(want, rec.Kept.Data)
	}
	slices.Sort(want)
	want = slices.Compact(want)
	b.until(2*time.Minute, fmt.Sprintf("the volumes %v and no others", want), "lvs --noheadings -o lv_name --select 'lv_name=~^data-'", func(out string, _ int) bool {
		have := strings.Fields(out)
		slices.Sort(have)
		return slices.Equal(have, want)
	})
	if list := b.kernels(); strings.Contains(list, "+") {
		b.t.Errorf("a kernel image still counts its boots:\n%s", list)
	}
	if failed := b.run("systemctl --failed --no-legend --plain"); failed != "" {
		b.t.Errorf("failed units: %s", failed)
	}
	return rec
}

func upgradeOS(b *upgradeBox) {
	p := b.poll()
	before := b.boot
	rows := len(b.history())
	b.begin(upgrade.Next.Version)
	row := b.ended(rows + 1)
	b.wantRow(row, "upgrade", "demo 1.1.0", "committed")
	b.healthy("1.1.0")
	seen := p.Stop()
	b.t.Logf("seen from outside: %s", seen.Summary())
	if b.boot == before {
		b.t.Error("another root runs without a reboot")
	}
	// The old stack serves until it is stopped for good: all that failed, failed
	// in one piece of time.
	outages := seen.Outages(time.Second)
	if len(outages) != 1 || outages[0].Before != "1.0.0" || outages[0].After != "1.1.0" {
		b.t.Errorf("outages: %v", outages)
	}
	b.kept(seen)
	b.wantData("1.1.0", 2, written)
	rec := b.settled()
	if c := rec.Committed; c.Slot != "B" || c.Release != "demo 1.1.0" || c.RootHash != b.u.baked["1.1.0"].Manifest.RootHash {
		b.t.Errorf("committed is %+v", c)
	}
	if k := rec.Kept; k == nil || k.Slot != "A" || k.Number != 1 || k.RootHash != b.u.base.Manifest.RootHash {
		b.t.Errorf("kept is %+v", k)
	}
	if r := b.report(); r.Slot != "B" || r.Release.Version != "1.1.0" || r.Upgrade == nil || r.Upgrade.State != "idle" || r.Upgrade.Kept != "demo 1.0.0" {
		b.t.Errorf("status: slot %s, release %+v, upgrade %+v", r.Slot, r.Release, r.Upgrade)
	}
	_, sent := b.server.Asked()
	b.t.Logf("%d bytes were sent, the box says %d fetched and %d reused", sent, row.Fetched, row.Reused)
	if row.Fetched == 0 || row.Reused < 10*row.Fetched {
		b.t.Errorf("one small file of the root and one service changed: %d bytes fetched, %d reused", row.Fetched, row.Reused)
	}
}

func rollbackByHand(b *upgradeBox) {
	b.note("written in 1.1.0")
	rows := len(b.history())
	p := b.poll()
	b.behind("holdfast rollback")
	row := b.ended(rows + 1)
	b.wantRow(row, "rollback", "demo 1.0.0", "committed")
	b.healthy("1.0.0")
	b.t.Logf("seen from outside: %s", p.Stop().Summary())
	b.wantData("1.0.0", 1, written, "-written in 1.1.0")
	if c := b.settled().Committed; c.Slot != "A" || c.Number < 3 {
		b.t.Errorf("committed is %+v, want slot A under a new number", c)
	}
}

func upgradeStack(b *upgradeBox) {
	boot, kernels := b.boot, b.kernels()
	b.note("written before 1.0.1")
	rows := len(b.history())
	p := b.poll()
	b.begin(upgrade.StackOnly.Version)
	row := b.ended(rows + 1)
	b.wantRow(row, "upgrade", "demo 1.0.1", "committed")
	b.healthy("1.0.1")
	seen := p.Stop()
	b.t.Logf("seen from outside: %s", seen.Summary())
	if row.Reboot || b.boot != boot {
		b.t.Errorf("boot %s before, %s after", boot, b.boot)
	}
	committed := func(list string) string {
		for line := range strings.Lines(list) {
			if strings.Contains(line, "  Linux/") {
				return strings.TrimSpace(line)
			}
		}
		return "none"
	}
	if now := b.kernels(); committed(now) != committed(kernels) {
		b.t.Errorf("kernel images before:\n%s\nafter:\n%s", kernels, now)
	}
	b.kept(seen)
	b.wantData("1.0.0", 1, written, "written before 1.0.1")
	rec := b.settled()
	if rec.Committed.Release != "demo 1.0.1" || rec.Kept == nil || rec.Kept.Release != "demo 1.0.0" {
		b.t.Errorf("committed %+v, kept %+v", rec.Committed, rec.Kept)
	}
}

// rollsBack tries a bad release: the box goes back to the one it had by
// itself, with all that was ever acknowledged; nobody outside reaches the bad
// one; `why` names the culprit; the release is quarantined.
func (b *upgradeBox) rollsBack(s upgrade.Spec, runs, culprit string) {
	b.t.Helper()
	before := b.record()
	b.note("written before " + s.Version)
	rows := len(b.history())
	p := b.poll()
	b.begin(s.Version)
	row := b.ended(rows + 1)
	b.wantRow(row, "upgrade", "demo "+s.Version, "rolled-back")
	b.healthy(runs)
	seen := p.Stop()
	b.t.Logf("seen from outside: %s", seen.Summary())
	if got := seen.From(s.Version); len(got) > 0 {
		b.t.Errorf("%d requests were answered by the trial, the first: %+v", len(got), got[0])
	}
	b.kept(seen)
	b.wantData("1.0.0", 1, written, "written before "+s.Version)
	rec := b.settled()
	if rec.Committed != before.Committed {
		b.t.Errorf("committed was %+v and is %+v", before.Committed, rec.Committed)
	}
	if digest := b.u.baked[s.Version].Manifest.Release; !slices.Contains(rec.Quarantined, digest) {
		b.t.Errorf("%s is not quarantined: %v", digest, rec.Quarantined)
	}
	why := b.run("holdfast why")
	b.t.Logf("why: %s", why)
	sentence, _, _ := strings.Cut(why, "\n")
	if row.Why == "" || !strings.Contains(sentence, culprit) || len(row.Evidence) == 0 {
		b.t.Errorf("why begins with %q (row: %q, %d pieces of evidence), want it to name %q", sentence, row.Why, len(row.Evidence), culprit)
	}
}

// refused asks for a release that the box will not take, which changes nothing.
func (b *upgradeBox) refused(s upgrade.Spec, reason string) {
	b.t.Helper()
	before, rows := b.record(), len(b.history())
	out, code := b.try("holdfast upgrade " + b.server.Ref() + "#" + s.Version)
	if code == 0 || !strings.Contains(out, reason) {
		b.t.Errorf("it ended with %d and does not say %q: %s", code, reason, out)
	}
	if after := b.record(); after.Committed != before.Committed || after.Trial != nil || len(b.history()) != rows {
		b.t.Errorf("a refused release changed the record: %+v", after)
	}
}

// trialBoot waits until the trial runs: the boot after the one that armed it.
func (b *upgradeBox) trialBoot() {
	b.t.Helper()
	b.next()
	b.until(bootTime, "the trial to have been started", catRecord, func(out string, code int) bool {
		rec, err := readRecord(b.t.TempDir(), out)
		return err == nil && rec.Trial != nil && rec.Trial.Starts > 0 && rec.Trial.Boot == b.boot
	})
}

func powerCutInTrial(b *upgradeBox) {
	before := b.record()
	b.note("written before the cut")
	rows := len(b.history())
	b.begin(upgrade.Next.Version)
	b.trialBoot()
	b.Kill()
	b.start()
	b.next()
	row := b.ended(rows + 1)
	b.wantRow(row, "upgrade", "demo 1.1.0", "rolled-back")
	b.healthy("1.0.1")
	b.wantData("1.0.0", 1, written, "written before the cut")
	if rec := b.settled(); rec.Committed != before.Committed {
		b.t.Errorf("committed was %+v and is %+v", before.Committed, rec.Committed)
	}
}
