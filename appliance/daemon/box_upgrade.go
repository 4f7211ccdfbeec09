// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/boot"
	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/prepare"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/status/facts"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/compose/release"
)

// Upgrades is what a box needs for other releases.
type Upgrades struct {
	// Root is the file with the root of trust in the sealed root.
	Root string
	// Engine is the sealed file that names the engine.
	Engine string
	// Proxy chooses the proxy of each request; nil uses none.
	Proxy func(*http.Request) (*url.URL, error)
	// Program is this one, which the child that prepares runs; "" finds it.
	Program string
	// Wrap puts a test's box around the real one; nil elsewhere.
	Wrap func(upgrade.Box) upgrade.Box
}

// upgradeBox is the box as the machine acts on it. Each act is another
// package's; what is here puts the two in each other's words.
type upgradeBox struct {
	d *Daemon
	u Upgrades
}

func newUpgradeBox(d *Daemon) upgrade.Box { return &upgradeBox{d: d, u: *d.c.Upgrades} }

func (b *upgradeBox) env() firstboot.Env {
	return firstboot.Env{Root: b.d.c.Root, Run: b.d.c.Commands, Out: b.d.c.Console}
}

// Record implements upgrade.Records.
func (b *upgradeBox) Record() (slot.Record, error) { return slot.Load(b.d.c.Root) }

// SaveRecord implements upgrade.Records.
func (b *upgradeBox) SaveRecord(was, rec slot.Record) error {
	if reflect.DeepEqual(was, rec) {
		return slot.Twice(b.d.c.Root)
	}
	_, err := slot.Update(b.d.c.Root, func(r *slot.Record) error {
		if !reflect.DeepEqual(*r, was) {
			return upgrade.ErrChanged
		}
		*r = rec
		return nil
	})
	return err
}

// Root implements upgrade.Facts, as do the following.
func (b *upgradeBox) Root() (slot.Root, error) { return slot.Running(b.d.c.Root) }

func (b *upgradeBox) BootID() string    { return b.d.facts.BootID }
func (b *upgradeBox) MachineID() string { return b.d.facts.MachineID }

func (b *upgradeBox) Uptime() time.Duration {
	return time.Duration(facts.Uptime() * float64(time.Second))
}

// Running is the release of the stretch under way, or of the last one.
func (b *upgradeBox) Running() (release.Description, error) {
	b.d.mu.Lock()
	f := b.d.running
	b.d.mu.Unlock()
	if f == nil || f.Description == nil {
		return release.Description{}, errors.New("the release that runs is not verified yet; holdfast status says what it waits for")
	}
	return *f.Description, nil
}

// Settings come from the configuration, then `holdfast channel`, then the
// release itself.
func (b *upgradeBox) Settings() upgrade.Settings {
	e, err := config.Load(b.d.c.Root)
	if err != nil {
		e.Config = config.Default()
	}
	u := e.Config.Updates
	s := upgrade.Settings{Source: u.Source, Channel: cmp.Or(b.d.channel(), u.Channel), Auto: u.Auto, Limit: u.Bandwidth.Bytes()}
	if d, err := b.Running(); err == nil {
		s.Source, s.Channel = cmp.Or(s.Source, d.Update.Source), cmp.Or(s.Channel, d.Update.Channel)
	}
	s.Channel = cmp.Or(s.Channel, "stable")
	if u.Window != "" {
		if w, err := upgrade.ParseWindow(u.Window); err == nil { // the schema has checked it
			s.Windows = append(s.Windows, w)
		}
	}
	return s
}

// Entries implements upgrade.Firmware, as do the following.
func (b *upgradeBox) Entries(ctx context.Context) (out []upgrade.Entry, err error) {
	err = b.esp(ctx, func(e *boot.ESP) error {
		list, err := e.Entries()
		for _, x := range list {
			out = append(out, upgrade.Entry{Number: x.Number, Kept: x.Place == boot.Kept, Left: x.TriesLeft, Done: x.TriesDone, RootHash: x.RootHash})
		}
		return err
	})
	return out, err
}

// esp opens the ESP for one act.
func (b *upgradeBox) esp(ctx context.Context, act func(*boot.ESP) error) error {
	e, err := boot.Open(ctx, boot.Env{Root: b.d.c.Root})
	if err != nil {
		return fmt.Errorf("the EFI system partition: %w", err)
	}
	return errors.Join(act(e), e.Close())
}

// PlaceTrial implements upgrade.Firmware.
func (b *upgradeBox) PlaceTrial(ctx context.Context, t slot.Trial) error {
	uki, err := os.Open(filepath.Join(releaseDir(b.d.c.State, t.Digest), prepare.UKIFile))
	if err != nil {
		return fmt.Errorf("the kernel image of %s is not prepared: %w; holdfast upgrade fetches it again", cmp.Or(t.Release, t.Digest), err)
	}
	defer uki.Close()
	return b.esp(ctx, func(e *boot.ESP) error { return e.PlaceTrial(t.Number, uki) })
}

// PlaceTrialFromKept implements upgrade.Firmware.
func (b *upgradeBox) PlaceTrialFromKept(ctx context.Context, kept, number int) error {
	return b.esp(ctx, func(e *boot.ESP) error { return e.PlaceTrialFromKept(kept, number) })
}

// Rearm implements upgrade.Firmware.
func (b *upgradeBox) Rearm(ctx context.Context, number int) error {
	return b.esp(ctx, func(e *boot.ESP) error { return e.Rearm(number) })
}

// Bless implements upgrade.Firmware.
func (b *upgradeBox) Bless(ctx context.Context, number int) error {
	return b.esp(ctx, func(e *boot.ESP) error { return e.Bless(number) })
}

// Keep implements upgrade.Firmware.
func (b *upgradeBox) Keep(ctx context.Context, number int) error {
	return b.esp(ctx, func(e *boot.ESP) error { return e.Keep(number) })
}

// RemoveEntry implements upgrade.Firmware.
func (b *upgradeBox) RemoveEntry(ctx context.Context, x upgrade.Entry) error {
	place := boot.Linux
	if x.Kept {
		place = boot.Kept
	}
	return b.esp(ctx, func(e *boot.ESP) error {
		return e.Remove(boot.Entry{Number: x.Number, Place: place, TriesLeft: x.Left, TriesDone: x.Done})
	})
}

// UpdateLoader implements upgrade.Firmware. The factory's is what is there.
func (b *upgradeBox) UpdateLoader(ctx context.Context, digest string) error {
	if digest == "" {
		return nil
	}
	rel, err := b.installed(digest)
	if err != nil {
		return err
	}
	parts := rel.Description().Parts
	name := filepath.Join(releaseDir(b.d.c.State, digest), prepare.BootFile)
	if parts == nil {
		return nil
	}
	program, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a release of the same root: its loader is there
	}
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(program); "sha256:"+hex.EncodeToString(sum[:]) != parts.Boot.Digest {
		return fmt.Errorf("%s is damaged: systemd-boot is left as it is", name)
	}
	return b.esp(ctx, func(e *boot.ESP) error {
		changed, err := e.UpdateLoader(program)
		if changed && err == nil {
			b.d.say.line("systemd-boot was updated to that of the release")
		}
		return err
	})
}

// Reboot implements upgrade.Firmware.
func (b *upgradeBox) Reboot(ctx context.Context, why string, force bool) error {
	b.d.say.line("rebooting: %s", why)
	argv := []string{"systemctl", "reboot"}
	if force {
		argv = append(argv, "--force")
	} else {
		argv = append(argv, "--no-block")
	}
	_, err := b.d.commands().Run(ctx, argv...)
	return err
}

// stopWithin is how long a stack may take to stop: what its unit has at a
// shutdown.
const stopWithin = 5 * time.Minute

// StopStack implements upgrade.Stack.
func (b *upgradeBox) StopStack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	if err := b.d.parkStack(ctx); err != nil {
		return err
	}
	return supervise.ClearAll(ctx, b.d.c.Engine, b.d.journal)
}

// StartStack implements upgrade.Stack.
func (b *upgradeBox) StartStack(ctx context.Context, g slot.Generation, _ bool) error {
	return b.d.unparkStack(ctx, g.Number)
}

// Report implements upgrade.Watch.
func (b *upgradeBox) Report() (status.Report, <-chan struct{}) { return b.d.feed.Get() }

// Latency implements upgrade.Watch.
func (b *upgradeBox) Latency() map[string]time.Duration { return b.d.took.p95(time.Now()) }

// evidenceLines bounds each piece of evidence.
const evidenceLines = 20

// Evidence implements upgrade.Watch.
func (b *upgradeBox) Evidence(ctx context.Context, service string) []status.Evidence {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out []status.Evidence
	r, _ := b.d.feed.Get()
	for _, s := range r.Services {
		if s.Name != service {
			continue
		}
		lines := []string{strings.TrimSpace(fmt.Sprintf("%s, %s, %d restarts %s", s.State, s.Health, s.Restarts, status.Printable(s.Reason)))}
		for _, p := range s.Probes {
			if p.Output != "" {
				lines = append(lines, p.Kind+" probe: "+status.Printable(p.Output))
			}
		}
		out = append(out, status.Evidence{What: "service " + service, Lines: lines})
	}
	var log []string
	err := b.d.Logs(ctx, api.LogQuery{Services: []string{service}, Tail: evidenceLines}, func(l status.LogLine) error {
		log = append(log, l.Time.UTC().Format(time.RFC3339)+" "+shortened(status.Printable(l.Text), 400))
		return nil
	})
	if len(log) == 0 && err != nil {
		return out
	}
	return append(out, status.Evidence{What: "log of " + service, Lines: log})
}

func shortened(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// BootEvidence implements upgrade.Watch.
func (b *upgradeBox) BootEvidence(ctx context.Context, bootID string) []status.Evidence {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out []status.Evidence
	for _, x := range []struct {
		what string
		args []string
	}{
		{"holdfast in boot " + bootID, []string{"-t", "holdfast", "-t", "systemd"}},
		{"kernel in boot " + bootID, []string{"-k", "-p", "warning"}},
	} {
		argv := append([]string{"journalctl", "-b", strings.ReplaceAll(bootID, "-", ""), "-n", strconv.Itoa(evidenceLines), "-o", "short-iso", "--no-pager", "-q"}, x.args...)
		text, err := b.d.commands().Run(ctx, argv...)
		var lines []string
		for l := range strings.Lines(string(text)) {
			lines = append(lines, shortened(status.Printable(strings.TrimRight(l, "\n")), 400))
		}
		if err == nil && len(lines) > 0 {
			out = append(out, status.Evidence{What: x.what, Lines: lines})
		}
	}
	return out
}

// freeBytes of the file system that holds a folder.
func freeBytes(path string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// folderBytes are the bytes of the files below a folder; none where there is
// no such folder.
func folderBytes(path string) (n int64) {
	filepath.WalkDir(path, func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if st, err := e.Info(); err == nil {
				n += st.Size()
			}
		}
		return nil
	})
	return n
}
