// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestShim(t *testing.T) {
	root, id, other := t.TempDir(), strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	for pid, argv := range map[string][]string{
		"1":   {"/sbin/init"},
		"20":  {"/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", other, "-address", "/run/containerd/containerd.sock"},
		"300": {"/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", id, "-address", "/run/containerd/containerd.sock"},
		"400": {"vi", "-id", id},
		"500": {"containerd-shim", "-id"},
		"600": {""},
	} {
		dir := filepath.Join(root, "proc", pid)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cmdline"), []byte(strings.Join(argv, "\x00")+"\x00"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if pid, err := shim(root, id); err != nil || pid != 300 {
		t.Errorf("%d, %v", pid, err)
	}
	if _, err := shim(root, strings.Repeat("ef", 32)); !errors.Is(err, ErrNoShim) {
		t.Error(err)
	}
	if _, err := shim(root, id[:12]); err == nil || errors.Is(err, ErrNoShim) {
		t.Errorf("a shortened id: %v", err)
	}
}
