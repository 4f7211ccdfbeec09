// SPDX-License-Identifier: Apache-2.0

// Package postova is the post-processor "holdfast-ova": it hands a baked disk to
// builder/target/ova and the OVA back to Packer as an artifact. It takes
// artifacts of source "holdfast" only and makes nothing itself.
package postova

import (
	"context"
	"fmt"

	"github.com/hashicorp/hcl/v2/hcldec"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/holdfast/holdfast/builder/packerplugin"
	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/builder/target/ova"
)

// BuilderID marks artifacts of this post-processor.
const BuilderID = "holdfast.post-processor.ova"

// PostProcessor is one post-processor block in a plugin process.
type PostProcessor struct {
	options ova.Options
}

// New makes the component.
func New() *PostProcessor { return &PostProcessor{} }

// ConfigSpec tells Packer the keys and their types.
func (p *PostProcessor) ConfigSpec() hcldec.ObjectSpec {
	return new(Config).FlatMapstructure().HCL2Spec()
}

// Configure checks the configuration and does no work.
func (p *PostProcessor) Configure(raws ...any) error {
	var c Config
	if err := c.decode(raws); err != nil {
		return err
	}
	var err error
	p.options, err = c.options()
	return err
}

// PostProcess makes the OVA beside the disk. The input always stays: the OVA
// lies in its folder and would go with it.
func (p *PostProcessor) PostProcess(ctx context.Context, ui packersdk.Ui, a packersdk.Artifact) (packersdk.Artifact, bool, bool, error) {
	dir, ok := packerplugin.Output(a)
	if !ok {
		return nil, true, true, fmt.Errorf("holdfast-ova takes what source \"holdfast\" has baked, not an artifact of %s: "+
			"make it the first post-processor of a build of that source", a.BuilderId())
	}
	r, err := ova.Make(ctx, dir, p.options, packerplugin.NewLines(ui))
	if err != nil {
		return nil, true, true, err
	}
	m, done := r.Machine, "made"
	if r.Unchanged {
		done = "up to date"
	}
	ui.Say(fmt.Sprintf("%s: %s, %s; a machine with %d processors, %s of memory and a disk of %s", r.Path, done, show.Bytes(r.Record.Bytes),
		m.CPUs, show.Bytes(int64(m.MemoryMiB)<<20), show.Bytes(m.DiskBytes)))
	return &artifact{result: *r, release: a.Id()}, true, true, nil
}
