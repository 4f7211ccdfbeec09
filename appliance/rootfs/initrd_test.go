// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestInitrdUnits: the initrd ends a boot that cannot go on by itself: with one
// message that the kernel takes whole, and with nothing that can wait for ever.
func TestInitrdUnits(t *testing.T) {
	s := Spec()
	const units = "usr/lib/systemd/system/"
	read := func(name string) string {
		t.Helper()
		b, err := fs.ReadFile(s.InitrdFiles, units+name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	err := fs.WalkDir(s.InitrdFiles, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(s.InitrdFiles, p)
		if err != nil {
			return err
		}
		text := string(b)
		if !strings.HasPrefix(text, "# SPDX-License-Identifier: Apache-2.0\n") || !strings.HasPrefix(p, units) {
			t.Errorf("%s: no licence, or no unit", p)
		}
		for _, line := range strings.Split(text, "\n") {
			if line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "[") && !regexp.MustCompile(`^[A-Z][A-Za-z]+=.+`).MatchString(line) {
				t.Errorf("%s: %q", p, line)
			}
		}
		if strings.Contains(text, "ExecStart=") && (!strings.Contains(text, "Type=oneshot") || !strings.Contains(text, "TimeoutStartSec=")) {
			t.Errorf("%s: what it runs may take for ever", p)
		}
		if path.Ext(p) == ".service" && !strings.Contains(text, "DefaultDependencies=no") {
			t.Errorf("%s: it waits for a system that does not come up", p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`ExecStart=echo "(<2>holdfast: [^"\n]+)"`).FindStringSubmatch(read("emergency.service"))
	// The kernel refuses more than 1024 bytes at once, and cuts lines of 976.
	if said == nil || len(said[1]) > 900 {
		t.Errorf("emergency.service says %q", said)
	}
	for unit, want := range map[string][]string{
		"emergency.service":                                {"Wants=holdfast-restart.timer", "FailureAction=reboot-immediate", "StandardOutput=file:/dev/kmsg"},
		"holdfast-restart.timer":                           {"OnActiveSec=15", "Unit=holdfast-restart.service"},
		"holdfast-restart.service":                         {"SuccessAction=reboot-immediate", "FailureAction=reboot-immediate"},
		"systemd-veritysetup@root.service.d/holdfast.conf": {"OnFailure=emergency.target"},
		"holdfast-softdog.service":                         {"ConditionPathExists=!/dev/watchdog0", "Before=initrd-cleanup.service"},
		"sysinit.target.d/holdfast.conf":                   {"Wants=holdfast-softdog.service"},
	} {
		for _, line := range want {
			if !slices.Contains(strings.Split(read(unit), "\n"), line) {
				t.Errorf("%s has no %q", unit, line)
			}
		}
	}
}

// TestInitrdModules: a watchdog of each kind is there, and what is left out has
// the kernel's names, or dracut would not know it.
func TestInitrdModules(t *testing.T) {
	s := Spec()
	for _, driver := range []string{"i6300esb", "wdat_wdt", "softdog"} {
		if !slices.Contains(s.InitrdDrivers, driver) {
			t.Errorf("%s is not in the initrd", driver)
		}
	}
	for _, m := range s.InitrdOmit {
		if strings.Contains(m, "-") || slices.ContainsFunc(s.InitrdDrivers, func(d string) bool { return strings.ReplaceAll(d, "-", "_") == m }) {
			t.Errorf("%s is omitted", m)
		}
	}
	for _, want := range []string{"systemd.watchdog_sec=60", "systemd.crash_action=reboot", "panic=10"} {
		if !slices.Contains(s.Cmdline, want) {
			t.Errorf("no %s on the command line", want)
		}
	}
}
