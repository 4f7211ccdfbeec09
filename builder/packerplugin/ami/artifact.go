// SPDX-License-Identifier: Apache-2.0

package postami

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	registryimage "github.com/hashicorp/packer-plugin-sdk/packer/registry/image"

	"github.com/holdfast/holdfast/builder/target/ami"
)

// artifact is the images in all regions.
type artifact struct {
	access ami.Access
	result ami.Result
}

// BuilderId implements packersdk.Artifact.
func (a *artifact) BuilderId() string { return BuilderID }

// Id is "region:ami-..., ..." with commas and no spaces, as Packer's Amazon
// plugin has it; the release where nothing was uploaded.
func (a *artifact) Id() string {
	if len(a.result.Images) == 0 {
		return a.result.Release
	}
	return a.result.ID()
}

// Files lists the record.
func (a *artifact) Files() []string {
	if a.result.File == "" {
		return nil
	}
	return []string{a.result.File}
}

// String is what Packer prints at the end of a build.
func (a *artifact) String() string {
	if len(a.result.Images) == 0 {
		return a.result.Release + " was not uploaded (skip_upload)"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s in AWS (root hash %s):", a.result.Name, a.result.RootHash)
	for _, im := range a.result.Images {
		fmt.Fprintf(&b, "\n%s: %s", im.Region, strings.TrimSpace(im.ID+" "+im.Snapshot))
	}
	return b.String()
}

// State answers what a later post-processor or HCP may ask for. Values are
// strings and maps: what Packer carries between processes in both of its
// encodings.
func (a *artifact) State(name string) any {
	switch name {
	case "record":
		return a.result.File
	case "root_hash":
		return a.result.RootHash
	case "sha256":
		return a.result.DiskSHA256
	case registryimage.ArtifactStateURI:
		return a.registry()
	}
	return nil
}

// registry is the images as the HCP Packer registry lists them, one for each
// region.
func (a *artifact) registry() any {
	var list []any
	for _, im := range a.result.Images {
		if im.ID == "" {
			continue
		}
		img, err := registryimage.FromArtifact(a, registryimage.WithProvider("aws"), registryimage.WithID(im.ID), registryimage.WithRegion(im.Region),
			registryimage.SetLabels(map[string]any{"ami_name": a.result.Name, "release": a.result.Release, "root_hash": a.result.RootHash, "snapshot": im.Snapshot}))
		if err != nil {
			return nil
		}
		list = append(list, map[string]any{
			"ImageID": img.ImageID, "ProviderName": img.ProviderName, "ProviderRegion": img.ProviderRegion, "Labels": img.Labels,
		})
	}
	if list == nil {
		return nil
	}
	return list
}

// Destroy deregisters the images, deletes their snapshots and removes the
// record.
func (a *artifact) Destroy() error {
	if len(a.result.Images) == 0 {
		return nil
	}
	err := ami.Remove(context.Background(), a.access, a.result)
	for _, f := range a.Files() {
		if e := os.Remove(f); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

var (
	_ packersdk.Artifact      = (*artifact)(nil)
	_ packersdk.PostProcessor = (*PostProcessor)(nil)
)
