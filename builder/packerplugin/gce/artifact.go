// SPDX-License-Identifier: Apache-2.0

package postgce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	registryimage "github.com/hashicorp/packer-plugin-sdk/packer/registry/image"

	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/builder/target/gce"
)

// artifact is the archive, and the image where there is one.
type artifact struct {
	config gce.Config
	result gce.Result
}

// BuilderId implements packersdk.Artifact.
func (a *artifact) BuilderId() string { return BuilderID }

// Id is the image's name, or that of the file.
func (a *artifact) Id() string {
	if i := a.result.Image; i != nil {
		return i.Name
	}
	return a.result.Record.File
}

// Files lists the archive and its record.
func (a *artifact) Files() []string { return []string{a.result.Path, a.result.Path + ".json"} }

// String is what Packer prints at the end of a build.
func (a *artifact) String() string {
	r := a.result.Record
	text := fmt.Sprintf("%s (%s, a disk of %s, root hash %s)", a.result.Path, show.Bytes(r.Bytes), show.Bytes(r.DiskBytes), r.RootHash)
	if a.result.Unchanged {
		text += ", which was there already"
	}
	if i := a.result.Image; i != nil {
		text = fmt.Sprintf("image %s in the project %s, made of %s", i.Name, i.Project, text)
	}
	return text
}

// State answers what a later post-processor or HCP may ask for. Values are
// strings and maps: what Packer carries between processes in both of its
// encodings.
func (a *artifact) State(name string) any {
	r := a.result.Record
	switch name {
	case "path":
		return a.result.Path
	case "sha256":
		return r.SHA256
	case "root_hash":
		return r.RootHash
	}
	i := a.result.Image
	if i == nil {
		return nil
	}
	switch name {
	case "image_name":
		return i.Name
	case "project_id":
		return i.Project
	case "self_link":
		return i.SelfLink
	case "gcs_object":
		if i.Object == "" {
			return nil
		}
		return "gs://" + path.Join(i.Bucket, i.Object)
	case registryimage.ArtifactStateURI:
		return a.registry()
	}
	return nil
}

// registry is the image as the HCP Packer registry lists it.
func (a *artifact) registry() any {
	i, region := a.result.Image, "global"
	if len(i.Locations) > 0 {
		region = i.Locations[0]
	}
	img, err := registryimage.FromArtifact(a, registryimage.WithProvider("gce"), registryimage.WithID(i.Name), registryimage.WithRegion(region),
		registryimage.SetLabels(map[string]any{"project_id": i.Project, "self_link": i.SelfLink, "root_hash": a.result.Record.RootHash, "family": i.Family}))
	if err != nil {
		return nil
	}
	return map[string]any{
		"ImageID": img.ImageID, "ProviderName": img.ProviderName, "ProviderRegion": img.ProviderRegion, "Labels": img.Labels,
	}
}

// Destroy removes the files, and the image from the cloud.
func (a *artifact) Destroy() error {
	var errs []error
	for _, f := range a.Files() {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if a.result.Image != nil {
		errs = append(errs, a.config.Upload.Delete(context.Background(), a.result.Image.Name))
	}
	return errors.Join(errs...)
}

var (
	_ packersdk.Artifact      = (*artifact)(nil)
	_ packersdk.PostProcessor = (*PostProcessor)(nil)
)
