// SPDX-License-Identifier: Apache-2.0

package postova

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/hashicorp/packer-plugin-sdk/packer/registry/image"

	"github.com/holdfast/holdfast/builder/target/ova"
)

// Packer's older encoding carries only types it has been told of.
func init() { gob.Register(new(image.Image)) }

// artifact is a finished OVA.
type artifact struct {
	result ova.Result
	// release is <name>-<version>.
	release string
}

// BuilderId implements packersdk.Artifact.
func (a *artifact) BuilderId() string { return BuilderID }

// Id is the file's name.
func (a *artifact) Id() string { return a.result.Record.File }

// Files lists the OVA and its record.
func (a *artifact) Files() []string { return []string{a.result.Path, a.result.Path + ".json"} }

// String is what Packer prints at the end of a build.
func (a *artifact) String() string {
	return fmt.Sprintf("%s (root hash %s)", a.result.Path, a.result.Record.RootHash)
}

// State answers what a later post-processor may ask for. Values are strings:
// what Packer carries between processes in both of its encodings. The metadata
// for HCP Packer is the exception, in the form its SDK wants.
func (a *artifact) State(name string) any {
	r := a.result.Record
	switch name {
	case "path":
		return a.result.Path
	case "record":
		return a.result.Path + ".json"
	case "bytes":
		return strconv.FormatInt(r.Bytes, 10)
	case "sha256":
		return r.SHA256
	case "root_hash":
		return r.RootHash
	case "disk_bytes":
		return strconv.FormatInt(r.DiskBytes, 10)
	case image.ArtifactStateURI:
		img, err := image.FromArtifact(a, image.WithProvider("ova"), image.WithRegion("local"), image.SetLabels(map[string]any{
			"release": a.release, "sha256": r.SHA256, "root_hash": r.RootHash,
		}))
		if err != nil {
			return nil
		}
		return img
	}
	return nil
}

// Destroy removes the OVA and its record.
func (a *artifact) Destroy() error {
	var all []error
	for _, f := range a.Files() {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}
