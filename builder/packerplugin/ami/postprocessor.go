// SPDX-License-Identifier: Apache-2.0

// Package postami is the Packer face of builder/target/ami: the post-processor
// "holdfast-ami". It turns HCL into that package's options, shows its progress
// in Packer's output and its result as an artifact. It has no logic of its own,
// and it takes only what the source "holdfast" has made.
package postami

import (
	"context"
	"fmt"

	"github.com/hashicorp/hcl/v2/hcldec"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/holdfast/holdfast/builder/packerplugin"
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/builder/target/ami"
)

// BuilderID marks artifacts of this post-processor.
const BuilderID = "holdfast.ami"

// PostProcessor is one post-processor block in a plugin process.
type PostProcessor struct {
	config  Config
	options ami.Options
}

// New makes the component.
func New() *PostProcessor { return new(PostProcessor) }

// ConfigSpec tells Packer the keys and their types.
func (p *PostProcessor) ConfigSpec() hcldec.ObjectSpec {
	return new(Config).FlatMapstructure().HCL2Spec()
}

// Configure checks the configuration and asks nobody: `packer validate` ends
// here.
func (p *PostProcessor) Configure(raws ...any) (err error) {
	p.config = Config{}
	if err := p.config.decode(raws); err != nil {
		return err
	}
	p.options, err = p.config.options()
	return err
}

// PostProcess uploads the disk and makes the images. The artifact it starts
// from is kept, unless keep_input_artifact says otherwise and there is an
// image by then.
func (p *PostProcessor) PostProcess(ctx context.Context, ui packersdk.Ui, in packersdk.Artifact) (packersdk.Artifact, bool, bool, error) {
	dir, ok := packerplugin.Output(in)
	if !ok {
		return nil, true, false, fmt.Errorf("holdfast-ami makes an image of what the source \"holdfast\" baked, not of %q: put it into the build of such a source, and first in its list of post-processors", in.BuilderId())
	}
	d, err := target.Open(dir)
	if err != nil {
		return nil, true, false, err
	}
	defer d.Close()
	o := p.options
	if o.UefiData, err = p.config.uefiData(dir); err != nil {
		return nil, true, false, err
	}
	if p.config.SkipUpload {
		plan, err := ami.Plan(d, o)
		if err != nil {
			return nil, true, false, err
		}
		ui.Say("skip_upload: " + plan)
		return &artifact{result: ami.Result{Release: d.Release(), RootHash: d.Manifest.RootHash}}, true, true, nil
	}
	r, err := ami.Publish(ctx, d, o, packerplugin.NewLines(ui))
	if err != nil {
		return nil, true, false, err
	}
	a := &artifact{access: o.Access, result: *r}
	ui.Say(a.String())
	return a, true, false, nil
}
