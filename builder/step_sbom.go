// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/holdfast/holdfast/compose/lock"
)

// stepSBOM writes the bill of materials: every package of the root and of the
// initrd, every image and what its own package list names.
func stepSBOM(ctx context.Context, w *work) (made, error) {
	bom := cdx.NewBOM()
	// The serial number and the time follow from the content, as all else.
	sum := key("sbom", w.cfg.Name, w.cfg.Version, w.lock)
	bom.SerialNumber = fmt.Sprintf("urn:uuid:%s-%s-8%s-8%s-%s", sum[:8], sum[8:12], sum[13:16], sum[17:20], sum[20:32])
	bom.Metadata = &cdx.Metadata{
		Timestamp: time.Unix(w.lock.Epoch, 0).UTC().Format(time.RFC3339),
		Component: &cdx.Component{BOMRef: "release", Type: cdx.ComponentTypeOS, Name: w.cfg.Name, Version: w.cfg.Version},
	}
	var all []cdx.Component
	for _, p := range w.lock.OS.Packages {
		if !slices.Contains(slices.Concat(w.cfg.OS.Purge...), p.Name) {
			all = append(all, debComponent("root", p))
		}
	}
	all = append(all, cdx.Component{BOMRef: "root/holdfast", Type: cdx.ComponentTypeApplication, Name: "holdfast", Version: w.lock.Holdfast,
		Description: "on-box supervisor, built with " + w.lock.Go})
	for _, p := range w.lock.Tools.Packages {
		if slices.Contains(initrdSources, p.Name) {
			all = append(all, debComponent("initrd", p))
		}
	}
	for _, i := range w.lock.Images {
		inside, err := packagesOf(ctx, w.cfg.Cache, i, w.images[i.Ref])
		if err != nil {
			return made{}, fmt.Errorf("image %s: %w", i.Ref, err)
		}
		c := cdx.Component{BOMRef: "image/" + i.Ref, Type: cdx.ComponentTypeContainer, Name: i.Ref, Version: i.Digest,
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: i.Digest[len("sha256:"):]}}}
		var sub []cdx.Component
		for _, p := range inside {
			sub = append(sub, debComponent("image/"+i.Ref, p))
		}
		if len(sub) > 0 {
			c.Components = &sub
		}
		all = append(all, c)
	}
	bom.Components = &all
	path := filepath.Join(w.tmp, "sbom.cdx.json")
	if err := writeFrom(path, func(out io.Writer) error {
		return cdx.NewBOMEncoder(out, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	}); err != nil {
		return made{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return made{}, err
	}
	return made{bytes: st.Size()}, nil
}

// initrdSources are the packages of the tools tree whose files the initrd
// holds besides those they link to.
var initrdSources = []string{"dracut-core", "systemd", "systemd-cryptsetup", "udev", "libsystemd0", "libsystemd-shared",
	"libudev1", "kmod", "libkmod2", "dmsetup", "libdevmapper1.02.1", "libcryptsetup12", "libc6", "libssl3t64", "util-linux", "mount", "libmount1", "libblkid1"}

// debComponent names a Debian package by its package URL
// (github.com/package-url/purl-spec, type deb).
func debComponent(in string, p lock.Package) cdx.Component {
	purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=debian-13", url.PathEscape(p.Name), url.QueryEscape(p.Version), p.Arch)
	c := cdx.Component{BOMRef: in + "/" + p.Name, Type: cdx.ComponentTypeLibrary, Name: p.Name, Version: p.Version, PackageURL: purl}
	if p.SHA256 != "" {
		c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: p.SHA256}}
	}
	return c
}
