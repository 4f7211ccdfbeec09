// SPDX-License-Identifier: Apache-2.0

// Package postgce is the Packer face of builder/target/gce: the post-processor
// "holdfast-gce". It turns HCL into that package's configuration, shows its
// progress in Packer's output and its result as an artifact. It has no logic of
// its own, and it takes only what the source "holdfast" has made.
package postgce

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2/hcldec"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/holdfast/holdfast/builder/packerplugin"
	"github.com/holdfast/holdfast/builder/target/gce"
)

// BuilderID marks artifacts of this post-processor.
const BuilderID = "holdfast.gce"

// PostProcessor is one post-processor block in a plugin process.
type PostProcessor struct {
	config Config
	target gce.Config
}

// New makes the component.
func New() *PostProcessor { return new(PostProcessor) }

// ConfigSpec tells Packer the keys and their types.
func (p *PostProcessor) ConfigSpec() hcldec.ObjectSpec {
	return new(Config).FlatMapstructure().HCL2Spec()
}

// Configure checks the configuration and does no work: `packer validate` ends
// here.
func (p *PostProcessor) Configure(raws ...any) error {
	p.config = Config{}
	if err := p.config.decode(raws); err != nil {
		return err
	}
	var err error
	if p.target, err = p.config.target(); err != nil {
		return &packersdk.MultiError{Errors: split(err)}
	}
	return nil
}

// split makes one error of each line.
func split(err error) (errs []error) {
	for line := range strings.Lines(err.Error()) {
		errs = append(errs, fmt.Errorf("%s", strings.TrimSpace(line)))
	}
	return errs
}

// PostProcess makes the file and the image. The artifact it starts from is
// kept, unless keep_input_artifact says otherwise and there is an image: a file
// that is all there is lies in the folder that would go.
func (p *PostProcessor) PostProcess(ctx context.Context, ui packersdk.Ui, in packersdk.Artifact) (packersdk.Artifact, bool, bool, error) {
	dir, ok := packerplugin.Output(in)
	if !ok {
		return nil, true, false, fmt.Errorf("holdfast-gce makes an image of what the source \"holdfast\" baked, not of %q: put it into the build of such a source, and first in its list of post-processors", in.BuilderId())
	}
	c := p.target
	c.Dir = dir
	if c.Upload != nil {
		u := *c.Upload
		var err error
		if u.SecureBoot, err = p.config.keys(dir); err != nil {
			return nil, true, false, err
		}
		c.Upload = &u
	}
	say := packerplugin.NewLines(ui)
	r, err := gce.Run(ctx, c, say)
	if err != nil {
		return nil, true, false, err
	}
	a := &artifact{config: c, result: *r}
	ui.Say(a.String())
	return a, true, r.Image == nil, nil
}
