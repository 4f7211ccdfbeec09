// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// words are the values of a key of a unit of ours.
func words(t *testing.T, unit, key string) []string {
	t.Helper()
	var out []string
	for line := range strings.SplitSeq(text(t, Spec().Files, "usr/lib/systemd/system/"+unit), "\n") {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			out = append(out, strings.Fields(v)...)
		}
	}
	return out
}

// TestDaemonStartsWithoutData: with any of these failed the daemon must be
// there to say so, and the engine must not run over an unmounted folder.
func TestDaemonStartsWithoutData(t *testing.T) {
	for _, other := range []string{"holdfast-data.service", "holdfast-factory.service", "docker.service"} {
		for _, key := range []string{"Requires", "Requisite", "BindsTo", "PartOf"} {
			if slices.Contains(words(t, "holdfast.service", key), other) {
				t.Errorf("holdfast.service has %s=%s: status could not say what is wrong with it", key, other)
			}
		}
		for _, key := range []string{"Wants", "After"} {
			if !slices.Contains(words(t, "holdfast.service", key), other) {
				t.Errorf("holdfast.service lacks %s=%s", key, other)
			}
		}
	}
	if !slices.Contains(words(t, "holdfast.service", "RequiresMountsFor"), "/var/lib/holdfast") {
		t.Error("holdfast.service may start before state is mounted")
	}
	for _, key := range []string{"Requires", "After"} {
		if !slices.Contains(words(t, "docker.service.d/10-holdfast.conf", key), "holdfast-data.service") {
			t.Errorf("docker.service lacks %s=holdfast-data.service", key)
		}
	}
	if _, err := fs.Stat(Spec().Files, "usr/lib/systemd/system/holdfast-data.service"); err != nil {
		t.Error(err)
	}
}
