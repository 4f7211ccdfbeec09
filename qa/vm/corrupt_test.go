// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"regexp"
	"strings"
	"testing"
)

// noRoot is what the console says when the boot has given up on the root.
const noRoot = `Dependency failed for [^\n]*(?:sysroot|Initrd Root)|Failed to switch root|(?i)kernel panic|emergency|freezing execution|reboot: `

// TestFlippedRoot flips one byte in a block that boot reads. The box must
// never run its stack, and the console must name dm-verity. Each row ends at
// the first sign that the boot has given up.
func TestFlippedRoot(t *testing.T) {
	for _, row := range []struct {
		name string
		file string // "" is the superblock
		end  string // what the console says when the boot has given up
		soak bool
	}{
		{name: "superblock", end: noRoot},
		{name: "PID 1", file: "usr/lib/systemd/systemd", end: noRoot},
		{name: "dockerd", file: "usr/sbin/dockerd", end: `(?s:(?:Failed to start [^\n]*docker\.service.*?){3})|` + noRoot},
		{name: "libc", file: "usr/lib/x86_64-linux-gnu/libc.so.6", end: noRoot, soak: true},
		{name: "supervisor", file: "usr/bin/holdfast", end: `Failed to start [^\n]*holdfast|` + noRoot, soak: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.soak && !soak {
				t.Skip("left out: only in `make soak`")
			}
			b := newBox(t, "")
			b.opts.Once = true
			// The initrd waits this long for a root that cannot be read; 90 s
			// by default.
			b.opts.Cmdline = "systemd.default_device_timeout_sec=40"
			part, err := image.Part("root-a")
			if err != nil {
				t.Fatal(err)
			}
			at := part.Offset + 8
			if row.file != "" {
				block, err := image.Locate("root-a", row.file)
				if err != nil {
					t.Fatal(err)
				}
				at = block.Middle()
			}
			b.flip(at)
			b.start()
			b.said(0, `device-mapper: verity: .*block \d+ is corrupted`)
			_, err = b.Console.Wait(b.within(bootTime, "giving up the boot"), row.end)
			select {
			case <-b.Exited(): // it rebooted, which ends this machine
			default:
				if err != nil {
					t.Fatal(err)
				}
			}
			if b.answers() {
				t.Error("the guest book answers")
			}
			if said := regexp.MustCompile(`Reached target .*boot-complete|the stack is healthy, \d`).FindString(b.Console.Text()); said != "" {
				t.Errorf("the console says %q", said)
			}
		})
	}
}

// TestFlippedFactory flips one byte of an image in factory: the box boots, says
// which image is damaged, and does not run it.
func TestFlippedFactory(t *testing.T) {
	if !soak {
		t.Skip("left out: only in `make soak`; TestFactoryCorruptImage of qa/engine sees the same without a boot")
	}
	b := newBox(t, "")
	at, err := image.LocateLargest("factory", "blobs/sha256")
	if err != nil {
		t.Fatal(err)
	}
	b.flip(at.Middle())
	b.start()
	said := b.said(0, `(holdfast\.demo/[a-z]+:[0-9.]+).*(?:corrupt|damaged|does not match)`)
	if _, err := b.Shell.Ready(b.within(bootTime, "a boot"), 1); err != nil {
		t.Fatal(err)
	}
	r := b.report()
	var condition string
	for _, c := range r.Conditions {
		if c.Code == "factory-image-corrupt" {
			condition = c.Text
			if c.Remedy == "" {
				t.Error("the condition has no remedy")
			}
		}
	}
	if !strings.Contains(condition, said[1]) {
		t.Errorf("the console names %s, the condition says %q of all %+v", said[1], condition, r.Conditions)
	}
	if r.Stack == "healthy" {
		t.Error("the stack is healthy with a damaged image")
	}
	for _, s := range r.Services {
		if strings.HasPrefix(s.Image, said[1]) && (s.State == "running" || s.Container != "") {
			t.Errorf("%s is %s from the damaged image", s.Name, s.State)
		}
	}
	if out, code := b.try("docker image inspect " + said[1]); code == 0 {
		t.Errorf("the engine has the damaged image: %s", out)
	}
}
