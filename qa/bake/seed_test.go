// SPDX-License-Identifier: Apache-2.0

//go:build bake

package bake

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/compose/release"
	disklayout "github.com/holdfast/holdfast/images/layout"
)

// seedTemplate is the least template that makes a seed.
const seedTemplate = `
variable "stack" { type = string }
variable "lock" { type = string }
variable "layouts" { type = list(string) }
variable "signing_key" { type = string }
variable "signing_cert" { type = string }
variable "output" { type = string }
variable "cache" {
  type    = string
  default = ""
}
packer {
  required_plugins {
    holdfast = {
      source  = "github.com/holdfast/holdfast"
      version = ">= 0.1.0"
    }
  }
}
source "holdfast" "seed" {
  name         = "demo"
  version      = "1.0.0"
  factory      = "seed"
  stack        = var.stack
  lock         = var.lock
  layouts      = var.layouts
  signing_key  = var.signing_key
  signing_cert = var.signing_cert
  output       = var.output
  cache        = var.cache
}
build { sources = ["source.holdfast.seed"] }
`

// TestSeed bakes the demo with its images and without: the operating system is
// the same, the disk is smaller, and what is left of the factory is a release
// that verifies and has not one blob of an image.
func TestSeed(t *testing.T) {
	before := observe(t)
	work := t.TempDir()
	template := filepath.Join(work, "seed.pkr.hcl")
	if err := os.WriteFile(template, []byte(seedTemplate), 0o644); err != nil {
		t.Fatal(err)
	}
	full := request{output: filepath.Join(work, "full")}
	seed := request{output: filepath.Join(work, "seed"), template: template}
	full.must(t)
	out, code := seed.run(t)
	if code != 0 {
		t.Fatalf("packer build ended with %d:\n%s", code, out)
	}
	if !strings.Contains(out, "factory = seed: holdfast.demo/") {
		t.Errorf("nobody says that boxes cannot fetch from a layout of this host:\n%s", out)
	}
	mf, ms := manifest(t, full.output), manifest(t, seed.output)
	if mf.Factory != builder.Embedded || ms.Factory != builder.Seed || mf.RootHash != ms.RootHash || mf.Inputs == ms.Inputs {
		t.Errorf("manifests: %s %s, root hashes %s %s", mf.Factory, ms.Factory, mf.RootHash, ms.RootHash)
	}
	if a, b := factoryPart(t, mf).Bytes, factoryPart(t, ms).Bytes; b >= a || mf.Files[0].Bytes-ms.Files[0].Bytes != a-b {
		t.Errorf("factory of %d bytes became %d, the disk %d became %d", a, b, mf.Files[0].Bytes, ms.Files[0].Bytes)
	}
	t.Logf("disk.raw: %d bytes with images, %d as a seed", mf.Files[0].Bytes, ms.Files[0].Bytes)
	shown, err := exec.Command("holdfast-release", "inspect", "--verify", seed.output).CombinedOutput()
	if err != nil || !regexp.MustCompile(`factory +seed`).Match(shown) {
		t.Errorf("inspect: %v\n%s", err, shown)
	}

	dir := unpackFactory(t, seed.output, ms)
	trust, err := release.LoadTrust(os.DirFS(seed.output), "signing.crt")
	if err != nil {
		t.Fatal(err)
	}
	rel, err := release.Open(os.DirFS(dir), trust)
	if err != nil {
		t.Fatal(err)
	}
	d := rel.Description()
	if d.Factory != release.Seed || len(d.Images) == 0 {
		t.Errorf("%+v", d)
	}
	for _, im := range d.Images {
		if _, err := os.Stat(filepath.Join(dir, "blobs/sha256", strings.TrimPrefix(im.Digest, "sha256:"))); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the factory holds the manifest of %s (%v)", im.Ref, err)
		}
		if err := rel.WithBlobs(os.DirFS(layout)).VerifyImage(t.Context(), im.Digest, nil); err != nil {
			t.Errorf("with the blobs of its layout: %v", err)
		}
	}
	before.unchanged(t)
}

func factoryPart(t *testing.T, m builder.Manifest) builder.ManifestPartition {
	t.Helper()
	for _, p := range m.Partitions {
		if p.Label == disklayout.FactoryLabel {
			return p
		}
	}
	t.Fatal("there is no factory partition")
	return builder.ManifestPartition{}
}

// unpackFactory unpacks the factory's squashfs with a program that is not ours,
// in the tools tree.
func unpackFactory(t *testing.T, output string, m builder.Manifest) string {
	t.Helper()
	tree, err := exec.Command("holdfast-release", "tools", "--lock", lockFile).Output()
	if err != nil {
		t.Fatal(err)
	}
	disk, err := os.Open(filepath.Join(output, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	dir := t.TempDir()
	img, err := os.Create(filepath.Join(dir, "factory.img"))
	if err != nil {
		t.Fatal(err)
	}
	part := factoryPart(t, m)
	if _, err := io.Copy(img, io.NewSectionReader(disk, part.Offset, part.Bytes)); err != nil {
		t.Fatal(err)
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$1" "$2/mnt" && exec chroot "$2" rdsquashfs --unpack-path / --unpack-root /mnt/release /mnt/factory.img`,
		"sh", dir, strings.TrimSpace(string(tree))).CombinedOutput()
	if err != nil {
		t.Fatalf("rdsquashfs: %v\n%s", err, out)
	}
	return filepath.Join(dir, "release")
}
