// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/compose/release"
)

// TestInspectRelease: inspect shows the parts of a release, and --verify finds
// the one byte that is another.
func TestInspectRelease(t *testing.T) {
	dist := t.TempDir()
	dir := filepath.Join(dist, builder.ReleaseName)
	if err := writeRelease(dir, "1.0.0", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	var m builder.Manifest
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		digest := "sha256:" + filepath.Base(b)
		if _, err := release.OpenInstalled(os.DirFS(dir), digest); err == nil {
			m.Release = digest
		}
	}
	var out bytes.Buffer
	if err := printRelease(&out, dist, &m); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"RELEASE\t" + m.Release, "engine\t", "\nuki\t", "\nroot chunks\t", "\nsystemd-boot\t", "\nimages\t"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if err := verifyRelease(t.Context(), dist, &m); err != nil {
		t.Error(err)
	}
	for _, b := range blobs {
		data, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(b, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := verifyRelease(t.Context(), dist, &m); err == nil || !strings.Contains(err.Error(), "bake it again") {
			t.Errorf("%s: %v", b, err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(b, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A bake of before has none.
	if err := printRelease(&out, dist, &builder.Manifest{}); err != nil {
		t.Error(err)
	}
	if err := verifyRelease(t.Context(), dist, &builder.Manifest{}); err != nil {
		t.Error(err)
	}
}
