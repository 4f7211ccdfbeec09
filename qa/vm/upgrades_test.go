// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/images/durable"
	"github.com/holdfast/holdfast/qa/upgrade"
)

// upgrades is what tests of upgrades begin with.
type upgrades struct {
	vendor *upgrade.Vendor
	base   *Image
	// disk and vars are of a box with the base release that was healthy, got
	// the entry of signBook, and was powered off. Boxes under test are
	// overlays of it.
	disk, vars string
	baked      map[string]*builder.Result
}

// upgradeTime bounds one upgrade, from the command to the end of its trial: a
// boot into the trial, its deadline, and a boot back.
const upgradeTime = 25 * time.Minute

// newUpgrades bakes what specs need and boots the base once, if that was not
// done before with these very bytes.
func newUpgrades(t *testing.T, specs ...upgrade.Spec) *upgrades {
	t.Helper()
	v, err := upgrade.OpenVendor(t.Context(), "../..", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	u := &upgrades{vendor: v, baked: map[string]*builder.Result{}}
	for _, s := range append([]upgrade.Spec{upgrade.Base}, specs...) {
		if u.baked[s.Version], err = v.Bake(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		// What differs in the stack alone has the same root, to the bit.
		base, root := u.baked[upgrade.Base.Version].Manifest.RootHash, u.baked[s.Version].Manifest.RootHash
		if (s.Variant == "" && s.Engine == "") != (root == base) {
			t.Fatalf("release %s with variant %q has root %s, the base has %s", s.Version, s.Variant, root, base)
		}
	}
	if u.base, err = OpenImage(u.baked[upgrade.Base.Version].Output); err != nil {
		t.Fatal(err)
	}
	u.firstBoot(t)
	return u
}

// firstBoot makes the state that boxes under test begin with.
func (u *upgrades) firstBoot(t *testing.T) {
	t.Helper()
	dir := u.vendor.Path("state", u.base.Manifest.Inputs)
	u.disk, u.vars = filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "vars.fd")
	if _, err := os.Stat(u.disk); err == nil {
		return
	}
	if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	making := dir + ".making"
	if err := os.MkdirAll(making, 0o755); err != nil {
		t.Fatal(err)
	}
	ok := t.Run("first boot", func(t *testing.T) {
		b := &box{t: t, ctx: t.Context(), opts: Options{Tree: tree, Forward: []int{80}}}
		var err error
		if b.opts.Disk, err = Overlay(b.ctx, tree, u.base, making, "disk", stateDisk); err != nil {
			t.Fatal(err)
		}
		if b.opts.Vars, err = Vars(b.ctx, tree, making, "vars", ""); err != nil {
			t.Fatal(err)
		}
		b.start()
		b.complete(0, 1)
		signBook(b)
		b.off()
	})
	if !ok {
		t.FailNow()
	}
	if _, err := os.Stat(filepath.Join(making, "disk.qcow2")); err != nil {
		t.Fatal("there is no saved first boot, and -run leaves it out: let it match first_boot too")
	}
	if err := durable.Rename(making, dir); err != nil {
		t.Fatal(err)
	}
}

// newBox is a box that goes on from the first boot, with a depot of releases.
func (u *upgrades) newBox(t *testing.T, specs ...upgrade.Spec) *upgradeBox {
	t.Helper()
	dir := t.TempDir()
	b := &upgradeBox{box: &box{t: t, ctx: t.Context(), opts: Options{Tree: tree, Forward: []int{80}}}, u: u}
	var err error
	if b.opts.Disk, err = OverlayOn(b.ctx, tree, u.disk, "qcow2", dir, "disk", 0); err != nil {
		t.Fatal(err)
	}
	vars, err := os.ReadFile(u.vars)
	if err != nil {
		t.Fatal(err)
	}
	b.opts.Vars = filepath.Join(dir, "vars.fd")
	if err := os.WriteFile(b.opts.Vars, vars, 0o600); err != nil {
		t.Fatal(err)
	}
	b.owner, b.depot = b.box, filepath.Join(dir, "depot")
	var list []*builder.Result
	for _, s := range specs {
		list = append(list, u.baked[s.Version])
	}
	if err := u.vendor.Publish(b.ctx, b.depot, list...); err != nil {
		t.Fatal(err)
	}
	if b.server, err = upgrade.Serve(b.depot); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.server.Close() })
	return b
}

// upgradeBox is a box that has a depot to upgrade from.
type upgradeBox struct {
	*box
	u      *upgrades
	server *upgrade.Server
	depot  string
	boot   string // id of the boot that was seen last
	// owner has the test that the machine ends with; a part's own ends sooner.
	owner *box
}

// start boots the machine.
func (b *upgradeBox) start() {
	b.t.Helper()
	b.owner.start()
	b.Machine = b.owner.Machine
}

// part is a step of a test: all of them share the machine.
func (b *upgradeBox) part(name string, run func(*upgradeBox)) {
	b.t.Helper()
	ok := b.t.Run(name, func(t *testing.T) {
		inner := *b
		box := *b.box
		box.t, box.ctx = t, t.Context()
		inner.box = &box
		run(&inner)
		b.boot = inner.boot
	})
	if !ok {
		b.t.Fatalf("%q failed; %s", name, b.lastWords())
	}
}

// up starts the machine and waits until its boot is complete.
func (b *upgradeBox) up() {
	b.t.Helper()
	b.start()
	b.next()
	b.healthy("")
}

// next waits for the next boot's shell.
func (b *upgradeBox) next() {
	b.t.Helper()
	id, err := b.Shell.Next(b.within(bootTime, "a boot"), b.boot)
	if err != nil {
		b.t.Fatalf("%v; %s", err, b.lastWords())
	}
	b.boot = id
}

// ask runs a command and says whether an answer came: where the box reboots
// meanwhile, none does. Other errors end the test.
func (b *upgradeBox) ask(limit time.Duration, command string) (string, int, bool) {
	b.t.Helper()
	out, code, err := b.Shell.Run(b.within(limit, "`"+command+"`"), command)
	if errors.Is(err, ErrRebooted) {
		return "", 0, false
	}
	if err != nil {
		b.t.Fatalf("%v; %s", err, b.lastWords())
	}
	return out, code, true
}

// until asks the box again and again, over reboots, until done says that it is
// as wanted.
func (b *upgradeBox) until(limit time.Duration, what, command string, done func(out string, code int) bool) string {
	b.t.Helper()
	ctx := b.within(limit, what)
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	last := ""
	for {
		if out, code, ok := b.ask(limit, command); ok {
			if last = out; done(out, code) {
				return out
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("waiting for %s: %v; `%s` last said:\n%s\n%s", what, ctx.Err(), command, last, b.lastWords()+b.diagnoseUpgrade())
		}
	}
}

// record is the generation record.
func (b *upgradeBox) record() slot.Record {
	b.t.Helper()
	rec, err := readRecord(b.t.TempDir(), b.run(catRecord))
	if err != nil {
		b.t.Fatal(err)
	}
	return rec
}

// catRecord prints both copies of the record, each as one line.
const catRecord = `cd /var/lib/holdfast && for f in generation.json*; do case $f in *.lock) ;; *) echo "$f $(base64 -w0 <$f)"; esac; done`

func readRecord(dir, out string) (slot.Record, error) {
	at := filepath.Join(dir, filepath.Dir(slot.Path))
	if err := os.MkdirAll(at, 0o755); err != nil {
		return slot.Record{}, err
	}
	for line := range strings.Lines(out) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return slot.Record{}, err
		}
		if err := os.WriteFile(filepath.Join(at, name), data, 0o600); err != nil {
			return slot.Record{}, err
		}
	}
	return slot.Load(dir)
}

// history is `holdfast history --json`, newest last.
func (b *upgradeBox) history() []status.UpgradeResult {
	b.t.Helper()
	return parseHistory(b.t, b.run("holdfast history --json"))
}

func parseHistory(t *testing.T, out string) []status.UpgradeResult {
	t.Helper()
	var rows []status.UpgradeResult
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rows); err != nil {
		t.Fatalf("history --json: %v in %s", err, out)
	}
	slices.SortStableFunc(rows, func(a, b status.UpgradeResult) int { return a.End.Compare(b.End) })
	return rows
}

// begin asks for an upgrade and does not wait for its end. The command's own
// words are kept for diagnoseUpgrade.
func (b *upgradeBox) begin(version string, flags ...string) {
	b.t.Helper()
	b.behind(strings.Join(append([]string{"holdfast upgrade", b.server.Ref() + "#" + version}, flags...), " "))
}

// behind runs a command of holdfast that may end in a reboot.
func (b *upgradeBox) behind(command string) {
	b.t.Helper()
	b.run(fmt.Sprintf("rm -f /run/test-upgrade.*; systemd-run --quiet --unit=test-upgrade-%d --property=CollectMode=inactive-or-failed --setenv=HOME=/root sh -c '%s >/run/test-upgrade.log 2>&1; echo $? >/run/test-upgrade.code'",
		time.Now().UnixNano(), command))
}

// ended waits for the n-th row of the history. A command that was refused
// makes none.
func (b *upgradeBox) ended(n int) status.UpgradeResult {
	b.t.Helper()
	var rows []status.UpgradeResult
	seen, refused := "", 0
	// The file says when it is worth to ask: each start of a program takes
	// seconds from a machine without virtualisation in hardware.
	b.until(upgradeTime, fmt.Sprintf("row %d of the history", n), "cat /run/test-upgrade.code 2>/dev/null || echo 0; cat /var/lib/holdfast/upgrade/history.json", func(out string, _ int) bool {
		command, file, _ := strings.Cut(out, "\n")
		if refused++; command == "0" {
			refused = 0
		}
		if file != seen || refused > 5 {
			list, code, ok := b.ask(bootTime, "holdfast history --json")
			if !ok || code != 0 {
				return false // the daemon is not up
			}
			seen, rows = file, parseHistory(b.t, list)
		}
		if len(rows) < n && refused > 5 {
			b.t.Fatalf("the command ended with %s, and the history has %d rows of %d\n%s", command, len(rows), n, b.diagnoseUpgrade())
		}
		return len(rows) >= n
	})
	b.boot = b.run("cat /proc/sys/kernel/random/boot_id")
	row := rows[len(rows)-1]
	evidence := row.Evidence
	row.Evidence = nil
	b.t.Logf("%+v", row)
	row.Evidence = evidence
	return row
}

// wantRow fails unless a row says what is wanted.
func (b *upgradeBox) wantRow(row status.UpgradeResult, kind, to, result string) {
	b.t.Helper()
	if row.Kind != kind || row.To != to || row.Result != result {
		b.t.Fatalf("%s to %s: %s (%s), want %s to %s: %s\n%s", row.Kind, row.To, row.Result, row.Why, kind, to, result, b.diagnoseUpgrade())
	}
}

// healthy waits until the box serves, by the release if one is given.
func (b *upgradeBox) healthy(release string) {
	b.t.Helper()
	b.until(bootTime, "the stack to be healthy", "holdfast status --json", func(out string, _ int) bool {
		var r status.Report
		return json.NewDecoder(strings.NewReader(out)).Decode(&r) == nil && r.Stack == "healthy"
	})
	if release == "" {
		return
	}
	code, _, by := b.fetch("/api/entries")
	if code != http.StatusOK || by != release {
		b.t.Fatalf("the box answers %d by release %q, want 200 by %s\n%s", code, by, release, b.diagnoseUpgrade())
	}
}

// fetch asks the box from outside: status, text and the release that answered.
func (b *upgradeBox) fetch(path string) (int, string, string) {
	b.t.Helper()
	resp, err := (&http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + b.Addr(80) + path)
	if err != nil {
		b.t.Fatalf("%v\n%s", err, b.diagnoseUpgrade())
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(http.MaxBytesReader(nil, resp.Body, 1<<20)); err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, text.String(), resp.Header.Get(upgrade.Header)
}

// lastWords are the console's, without systemd's bars for jobs that take long.
func (b *upgradeBox) lastWords() string {
	var kept []string
	for _, line := range strings.Split(b.Console.Text(), "\n") {
		if !strings.Contains(line, " Job ") {
			kept = append(kept, line)
		}
	}
	return "the console last said:\n" + tail(strings.Join(kept, "\n"), 40) + "\n"
}

// diagnoseUpgrade is what a person would look at first.
func (b *upgradeBox) diagnoseUpgrade() string {
	var out strings.Builder
	for _, c := range []string{
		"cat /run/test-upgrade.log", "holdfast status", "holdfast history", "holdfast why", "systemctl --failed --no-legend --plain",
		"cat /var/lib/holdfast/generation.json.*", "cat /proc/cmdline; findmnt /var/lib/holdfast/data; ls /dev/holdfast",
		"journalctl -b -u 'holdfast*' --no-pager -o short-monotonic | tail -n 60", "docker ps -a",
	} {
		ctx := b.within(time.Minute, "`"+c+"`")
		text, code, err := b.Shell.Run(ctx, c)
		fmt.Fprintf(&out, "# %s  (%d)\n%s\n", c, code, text)
		if err != nil {
			fmt.Fprintln(&out, err)
			break
		}
	}
	return out.String()
}
