// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

const machine = "0123456789abcdef0123456789abcdef"

// label plays LVM for a group whose tags are a label.
type label struct {
	mu   sync.Mutex
	tags []string
	// writes counts commands that changed it; before is called at each.
	writes int
	before func()
	fail   error
}

func newLabel(tags ...string) *label {
	return &label{tags: append([]string{"holdfast.format=1", "holdfast.box=" + machine, "holdfast.generation=1", "holdfast.volume=data-1"}, tags...)}
}

func (l *label) Run(_ context.Context, argv ...string) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if argv[0] != "lvm" || argv[2] != "--devices" || argv[3] != "/dev/vda5" || argv[len(argv)-1] != "holdfast" {
		return nil, fmt.Errorf("ran %v", argv)
	}
	if argv[1] == "vgs" {
		return fmt.Appendf(nil, `{"report":[{"vg":[{"vg_tags":%q}]}]}`, strings.Join(l.tags, ",")), nil
	}
	if l.before != nil {
		l.before()
	}
	if l.fail != nil {
		return nil, l.fail
	}
	l.writes++
	for i, a := range argv[:len(argv)-1] {
		switch a {
		case "--addtag":
			l.tags = append(l.tags, argv[i+1])
		case "--deltag":
			l.tags = slices.DeleteFunc(l.tags, func(t string) bool { return t == argv[i+1] })
		}
	}
	return nil, nil
}

func (l *label) has(tag string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.tags, tag)
}

// released is a box with a release of that version on labelled data.
func released(t *testing.T, l *label, e *fake.Engine, version string) Config {
	data := filepath.Join(t.TempDir(), "data")
	root := sealedBox(t, data)
	slottest.Put(t, root, "etc/machine-id", machine+"\n")
	f := one(t)
	f.Source = source{text: pinned}
	f.Release.Name, f.Release.Version, f.ReadableFrom = "demo", version, version
	return Config{Root: root, Data: data, Engine: e, Find: found{f: f}, Commands: l}
}

// TestLabelComesFirst: the label names the release before anything of it was
// started, once, and a label that cannot be written holds the stack.
func TestLabelComesFirst(t *testing.T) {
	e, l := fake.New(), newLabel()
	l.before = func() { neverAsked(t, e) }
	c := released(t, l, e, "1.0.0")
	client, _, stop := start(t, c)
	await(t, client, "healthy")
	stop()
	if !l.has("holdfast.version=1.0.0") || !l.has("holdfast.readable-from=1.0.0") || l.writes != 1 {
		t.Errorf("%d writes, %q", l.writes, l.tags)
	}
	client, _, stop = start(t, c)
	await(t, client, "healthy")
	stop()
	if l.writes != 1 {
		t.Errorf("written again: %q", l.tags)
	}
	l = newLabel()
	l.fail = &firstboot.CommandError{Argv: []string{"lvm"}, Code: 5, Text: "disk is broken"}
	e = fake.New()
	client, _, _ = start(t, released(t, l, e, "1.0.0"))
	if got := condition(await(t, client, "held"), "data-unlabelled"); !strings.Contains(got.Text, "disk is broken") {
		t.Errorf("%+v", got)
	}
	neverAsked(t, e)
}

// TestDataHolds: data that this release may not run on, and data that
// holdfast-data would not put in use.
func TestDataHolds(t *testing.T) {
	ran := []string{"holdfast.release=demo", "holdfast.version=1.1.0", "holdfast.readable-from=1.1.0"}
	for _, c := range []struct {
		name, code, text, remedy string
		label                    *label
		change                   func(root string)
	}{
		{"newer data", "data-newer", "last used by demo 1.1.0", "install demo 1.1.0 or newer", newLabel(ran...), nil},
		{"another product", "data-other-release", "shop 1.1.0", "shop 1.1.0", newLabel(append([]string{"holdfast.release=shop"}, ran[1:]...)...), nil},
		{"taken meanwhile", "data-foreign", "by another box", "data adopt", &label{tags: []string{"holdfast.format=1", "holdfast.box=" + strings.Repeat("f", 32)}}, nil},
		{"held at boot", "data-foreign", "it says so", "adopt", newLabel(), func(root string) {
			slottest.Put(t, root, firstboot.DataFile, `{"held":{"code":"data-foreign","severity":"critical","text":"it says so","remedy":"adopt"}}`)
			_ = os.Remove(filepath.Join(root, slot.Path)) // at its first boot
		}},
		{"did not run", "data-missing", "has not run", "journalctl", newLabel(), func(root string) { _ = os.Remove(filepath.Join(root, firstboot.DataFile)) }},
		{"another volume", "data-missing", "data-2", "journalctl", newLabel(), func(root string) {
			slottest.Put(t, root, firstboot.DataFile, `{"place":"system-disk","group":"holdfast","volume":"data-2","device":"/dev/vda5"}`)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := fake.New()
			config := released(t, c.label, e, "1.0.0")
			if c.change != nil {
				c.change(config.Root)
			}
			client, _, _ := start(t, config)
			got := condition(await(t, client, "held"), c.code)
			if got.Severity != "critical" || !strings.Contains(got.Text, c.text) || !strings.Contains(got.Remedy, c.remedy) {
				t.Errorf("%+v", got)
			}
			neverAsked(t, e)
			if c.label.writes > 0 {
				t.Errorf("the label was changed: %q", c.label.tags)
			}
		})
	}
}

// TestDiskNotesShow: what holdfast-data says of other disks is in the report.
func TestDiskNotesShow(t *testing.T) {
	c := released(t, newLabel(), fake.New(), "1.0.0")
	slottest.Put(t, c.Root, firstboot.DataFile, `{"place":"system-disk","group":"holdfast","volume":"data-1","device":"/dev/vda5",
		"conditions":[{"code":"data-disk-unused","severity":"info","text":"vdb is empty","remedy":"leave it"}]}`)
	client, _, _ := start(t, c)
	if got := condition(await(t, client, "healthy"), "data-disk-unused"); got.Text != "vdb is empty" {
		t.Errorf("%+v", got)
	}
}

// TestSecretsTravel: a disk that comes from another box brings the passwords
// its data was made with; none is made anew.
func TestSecretsTravel(t *testing.T) {
	c := released(t, newLabel("holdfast.release=demo", "holdfast.version=1.0.0", "holdfast.readable-from=1.0.0"), fake.New(), "1.0.0")
	const password = "made-on-the-other-box"
	slottest.Put(t, c.Data, "secrets/pw", password)
	slottest.Put(t, c.Data, "secrets/@generated.json", `{"format":1,"names":["pw"]}`)
	slottest.Put(t, c.Data, "volumes/demo_data/_data/x", "")
	client, _, stop := start(t, c)
	await(t, client, "healthy")
	stop()
	if got, err := os.ReadFile(filepath.Join(c.Data, "secrets/pw")); err != nil || string(got) != password {
		t.Errorf("the secret is %q, %v", got, err)
	}
	// The same disk without the file: it is missed, not replaced.
	if err := os.Remove(filepath.Join(c.Data, "secrets/pw")); err != nil {
		t.Fatal(err)
	}
	client, _, _ = start(t, c)
	if got := condition(await(t, client, "held"), "secret-lost"); !strings.Contains(got.Text, "pw") {
		t.Errorf("%+v", got)
	}
}
