// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"slices"
	"strings"
	"testing"
)

// TestDataWaitsForConfiguration: the first decision where data lives is for
// good, so it comes after the configuration and the machine id, and no target
// that the network waits for waits for it.
func TestDataWaitsForConfiguration(t *testing.T) {
	const unit = "holdfast-data.service"
	for _, other := range []string{"holdfast-config.service", "holdfast-identity.service", "holdfast-storage.service", "var.mount"} {
		if !slices.Contains(words(t, unit, "After"), other) {
			t.Errorf("%s does not wait for %s", unit, other)
		}
	}
	if slices.Contains(words(t, unit, "Requires"), "holdfast-config.service") {
		t.Errorf("%s fails with the configuration", unit)
	}
	for _, early := range []string{"sockets.target", "sysinit.target", "basic.target", "local-fs.target"} {
		if slices.Contains(words(t, unit, "Before"), early) {
			t.Errorf("%s holds up %s, and may itself wait for the network", unit, early)
		}
	}
	for _, engine := range []string{"docker.service.d/10-holdfast.conf", "docker.socket.d/10-holdfast.conf", "containerd.service.d/10-holdfast.conf"} {
		if !slices.Contains(words(t, engine, "Requires"), unit) || !slices.Contains(words(t, engine, "After"), unit) {
			t.Errorf("%s starts without the data", engine)
		}
	}
	// An engine that is started by whoever asks, over data that is held, would
	// be started again without end.
	for _, l := range enabled {
		if l.unit == "docker.socket" {
			t.Errorf("docker.socket listens from %s on, whether or not the data is there", l.target)
		}
	}
	if !slices.Contains(words(t, "docker.socket.d/10-holdfast.conf", "DefaultDependencies"), "no") {
		t.Error("docker.socket holds up sockets.target, and with it the network that the configuration may need")
	}
	if rule := text(t, Spec().Files, "usr/lib/udev/rules.d"); !strings.Contains(rule, `ENV{SYSTEMD_WANTS}+="`+unit+`"`) {
		t.Errorf("a disk that comes late starts nothing: %s", rule)
	}
}
