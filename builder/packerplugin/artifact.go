// SPDX-License-Identifier: Apache-2.0

package packerplugin

import (
	"fmt"
	"os"
	"path/filepath"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/holdfast/holdfast/builder"
)

// artifact is a finished output folder.
type artifact struct {
	dir      string
	manifest builder.Manifest
}

func newArtifact(r builder.Result) *artifact {
	return &artifact{dir: r.Output, manifest: r.Manifest}
}

// BuilderId implements packersdk.Artifact.
func (a *artifact) BuilderId() string { return BuilderID }

// Id is <name>-<version>.
func (a *artifact) Id() string { return a.manifest.Name + "-" + a.manifest.Version }

// Files lists every output, manifest.json last.
func (a *artifact) Files() []string {
	var files []string
	for _, f := range a.manifest.Files {
		files = append(files, filepath.Join(a.dir, f.Name))
	}
	return append(files, filepath.Join(a.dir, "manifest.json"))
}

// String is what Packer prints at the end of a build.
func (a *artifact) String() string {
	return fmt.Sprintf("%s in %s (root hash %s)", a.Id(), a.dir, a.manifest.RootHash)
}

// State answers what a post-processor may ask for. Values are strings: what
// Packer carries between processes in both of its encodings.
func (a *artifact) State(name string) any {
	switch name {
	case "name":
		return a.manifest.Name
	case "version":
		return a.manifest.Version
	case "os_version":
		return a.manifest.OSVersion
	case "root_hash":
		return a.manifest.RootHash
	case "factory":
		return a.manifest.Factory
	case "output":
		return a.dir
	case "disk":
		return filepath.Join(a.dir, "disk.raw")
	case "manifest":
		return filepath.Join(a.dir, "manifest.json")
	}
	return nil
}

// Destroy removes the output folder, if a bake made it.
func (a *artifact) Destroy() error {
	if !isBake(a.dir) {
		return fmt.Errorf("%s was not removed: it has no manifest.json, so a bake did not make it", a.dir)
	}
	return os.RemoveAll(a.dir)
}

// Output is the folder of an artifact that the source "holdfast" has made; ok
// is false for any other artifact.
func Output(a packersdk.Artifact) (dir string, ok bool) {
	dir, ok = a.State("output").(string)
	return dir, ok && a.BuilderId() == BuilderID
}
