// SPDX-License-Identifier: Apache-2.0

//go:build engine

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/images/gpt"
	"github.com/holdfast/holdfast/images/marketplace"
)

// squashfsDisk is a disk whose root-a is a squashfs of these files, made with
// the tool a bake makes it with.
func squashfsDisk(t *testing.T, tree *tools.Tree, files map[string]string) *target.Disk {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o4644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	err := tree.Run(t.Context(), sandbox.Cmd{Args: []string{"tar2sqfs", "--quiet", "/run/holdfast/out/image"}, Stdin: &b,
		Binds: []sandbox.Bind{{Host: dir, Tree: "/run/holdfast/out"}}})
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	const mib, size = 1 << 20, 16 << 20
	table := gpt.Table{DiskGUID: gpt.GUID{9, 6: 0x80, 8: 0x80}, Parts: []gpt.Part{{Label: "root-a", Type: gpt.TypeRootX8664, UUID: gpt.GUID{1, 6: 0x80, 8: 0x80}, Offset: mib, Size: 8 * mib}}}
	head, tail, err := gpt.Encode(table, size)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at, b := range map[int64][]byte{0: head, mib: image, size - int64(len(tail)): tail} {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	return &target.Disk{Dir: dir, File: f, Size: size}
}

func TestReadSquashfs(t *testing.T) {
	dir := os.Getenv("HOLDFAST_TOOLS")
	if dir == "" {
		t.Fatal("set HOLDFAST_TOOLS to an unpacked tools tree (holdfast-release tools --lock FILE prints one)")
	}
	tree := &tools.Tree{Dir: dir}
	disk := squashfsDisk(t, tree, map[string]string{"etc/shadow": "root::1::::::\n", "usr/bin/odd": "x"})
	root, err := readSquashfs(t.Context(), disk, tree, "root-a", marketplace.ReadRoot)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, r := range marketplace.Check(marketplace.Image{Root: root, Boot: &marketplace.Boot{}}).Rows {
		found[r.Check] = strings.Join(r.Found, "\n")
	}
	if found["root-password"] != "root has an empty password" || !strings.Contains(found["set-uid"], "/usr/bin/odd") {
		t.Errorf("%q, %q", found["root-password"], found["set-uid"])
	}
	if _, err := readSquashfs(t.Context(), disk, tree, "factory", marketplace.ReadFactory); err == nil {
		t.Error("a partition that is not there was read")
	}
	// Damage in the middle of it is an error, and not a short report.
	if _, err := disk.File.WriteAt(bytes.Repeat([]byte{0xff}, 200), 1<<20+96); err != nil {
		t.Fatal(err)
	}
	if _, err := readSquashfs(t.Context(), disk, tree, "root-a", marketplace.ReadRoot); err == nil {
		t.Error("a damaged squashfs was read")
	} else {
		t.Log(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := readSquashfs(ctx, disk, tree, "root-a", marketplace.ReadRoot); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
