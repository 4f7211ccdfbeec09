// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
	"github.com/holdfast/holdfast/appliance/status"
)

// sealedBox is a root that looks like a box whose data is mounted at dataDir.
func sealedBox(t *testing.T, dataDir string) string {
	t.Helper()
	root := slottest.Box(t, "root-a", "esp", "root-a", "root-b", "factory", "state")
	slottest.Put(t, root, "sys/dev/block/254:3/dm/name", "holdfast-data--1\n")
	mounts, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	slottest.Put(t, root, "proc/self/mountinfo", string(mounts)+
		"31 30 254:3 / "+dataDir+" rw - xfs /dev/mapper/holdfast-data--1 rw\n"+
		"32 30 254:3 /volumes /var/lib/docker/volumes rw - xfs /dev/mapper/holdfast-data--1 rw\n")
	slottest.Put(t, root, firstboot.DataFile, `{"place":"system-disk","group":"holdfast","volume":"data-1","device":"/dev/vda5"}`)
	running, err := slot.Running(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, filepath.Dir(slot.Path)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := slot.Save(root, slot.First(running)); err != nil {
		t.Fatal(err)
	}
	return root
}

// condition of a report by its code.
func condition(r status.Report, code string) status.Condition {
	i := slices.IndexFunc(r.Conditions, func(c status.Condition) bool { return c.Code == code })
	if i < 0 {
		return status.Condition{}
	}
	return r.Conditions[i]
}

func neverAsked(t *testing.T, e *fake.Engine) {
	t.Helper()
	if l := e.Log(); slices.ContainsFunc(l, func(s string) bool { return strings.HasPrefix(s, "create") || strings.HasPrefix(s, "start") }) {
		t.Errorf("the engine was asked for %v", l)
	}
}

// TestBoxHolds: on a box the daemon answers and starts nothing unless the
// running root is the committed one and its data is mounted.
func TestBoxHolds(t *testing.T) {
	for _, c := range []struct {
		name, code, text string
		change           func(root string)
	}{
		{"foreign root", "generation-unknown", "not the committed generation's", func(root string) {
			slottest.Put(t, root, "proc/cmdline", "roothash="+strings.Repeat("cd", 32)+"\n")
		}},
		{"no record", "generation-unknown", "no generation record", func(root string) {
			for _, copy := range []string{".1", ".2"} {
				if err := os.Remove(filepath.Join(root, slot.Path+copy)); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
		}},
		{"damaged record", "generation-unknown", "damaged", func(root string) {
			for _, copy := range []string{".1", ".2"} {
				slottest.Put(t, root, slot.Path+copy, "{")
			}
		}},
		// It must not pass for a host that is no box.
		{"root that is not dm-verity", "generation-unknown", "not one dm-verity device", func(root string) {
			if err := os.RemoveAll(filepath.Join(root, "sys/devices/virtual/block/dm-0/slaves")); err != nil {
				t.Fatal(err)
			}
		}},
		{"data is not mounted", "data-missing", "nothing is mounted", func(root string) {
			slottest.Put(t, root, "proc/self/mountinfo", "22 1 254:0 / / ro,relatime - squashfs /dev/mapper/root ro\n")
		}},
		{"another volume", "data-missing", "holdfast-state", func(root string) {
			slottest.Put(t, root, "sys/dev/block/254:3/dm/name", "holdfast-state\n")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			root := sealedBox(t, data)
			c.change(root)
			f := one(t)
			f.Source = source{text: pinned}
			e := fake.New()
			client, console, _ := start(t, Config{Root: root, Data: data, Engine: e, Find: found{f: f}})
			r := await(t, client, "held")
			if got := condition(r, c.code); got.Severity != "critical" || !strings.Contains(got.Text, c.text) || got.Remedy == "" {
				t.Errorf("conditions %+v", r.Conditions)
			}
			if !strings.Contains(console.String(), c.text) {
				t.Errorf("console:\n%s", console)
			}
			neverAsked(t, e)
			if _, err := os.Stat(data); !os.IsNotExist(err) {
				t.Errorf("something was written where the data should be: %v", err)
			}
		})
	}
}

func TestBoxRuns(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	f := one(t)
	f.Source = source{text: pinned}
	client, _, _ := start(t, Config{Root: sealedBox(t, data), Data: data, Engine: fake.New(), Find: found{f: f}})
	if r := await(t, client, "healthy"); r.Slot != "A" || r.Generation != 1 {
		t.Errorf("%+v", r)
	}
}

// TestStackOnForeignSealedHost: another maker's machine with a root hash is a
// host like any other, where a person named the stack.
func TestStackOnForeignSealedHost(t *testing.T) {
	root := t.TempDir()
	slottest.Put(t, root, "proc/cmdline", "roothash="+slottest.Hash+"\n")
	slottest.Put(t, root, "proc/self/mountinfo", "22 1 8:1 / / ro - erofs /dev/sda1 ro\n")
	f := one(t)
	f.Source = source{text: pinned}
	client, _, _ := start(t, Config{Root: root, AnyHost: true, Engine: fake.New(), Find: found{f: f}})
	await(t, client, "healthy")
}

// TestLostSecretHolds: a password that is gone is not made anew, and comes
// back from a backup.
func TestLostSecretHolds(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	f := one(t)
	f.Source = source{text: pinned}
	client, _, stop := start(t, Config{Data: data, Engine: fake.New(), Find: found{f: f}})
	await(t, client, "healthy")
	stop()
	secret := filepath.Join(data, "secrets", "pw")
	kept, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, lose := range map[string]func() error{
		"the file": func() error { return os.Remove(secret) },
		"the whole folder": func() error {
			return os.RemoveAll(filepath.Dir(secret))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(filepath.Join(data, "volumes", "demo_data"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := lose(); err != nil {
				t.Fatal(err)
			}
			e := fake.New()
			client, console, stop := start(t, Config{Data: data, Engine: e, Find: found{f: f}})
			c := condition(await(t, client, "held"), "secret-lost")
			if !strings.Contains(c.Text, "secret pw") || !strings.Contains(c.Remedy, secret) || !strings.Contains(c.Remedy, "factory state") {
				t.Errorf("%+v", c)
			}
			neverAsked(t, e)
			if _, err := os.Stat(secret); !os.IsNotExist(err) {
				t.Errorf("the secret was made again: %v", err)
			}
			if strings.Contains(console.String(), string(kept)) {
				t.Error("the console has the secret")
			}
			stop()
			if err := os.WriteFile(secret, kept, 0o444); err != nil {
				t.Fatal(err)
			}
			client, _, stop = start(t, Config{Data: data, Engine: fake.New(), Find: found{f: f}})
			await(t, client, "healthy")
			stop()
		})
	}
}
