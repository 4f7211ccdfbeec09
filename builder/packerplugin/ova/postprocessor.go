// SPDX-License-Identifier: Apache-2.0

// Package postova is the post-processor "holdfast-ova": it hands a baked disk to
// builder/target/ova and the OVA back to Packer as an artifact. It takes
// artifacts of source "holdfast" only and makes nothing itself.
package postova

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/hcl/v2/hcldec"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/builder/target/ova"
)

const (
	// BuilderID marks artifacts of this post-processor.
	BuilderID = "holdfast.post-processor.ova"
	// input marks the artifacts it takes: packerplugin.BuilderID.
	input = "holdfast.builder"
)

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
	dir, ok := a.State("output").(string)
	if a.BuilderId() != input || !ok {
		return nil, true, true, fmt.Errorf("holdfast-ova takes what source \"holdfast\" has baked, not an artifact of %s: "+
			"make it the first post-processor of a build of that source", a.BuilderId())
	}
	r, err := ova.Make(ctx, dir, p.options, &progress{ui: ui})
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

// progress shows lines in Packer's output, whose interface is not meant for
// several goroutines.
type progress struct {
	mu sync.Mutex
	ui packersdk.Ui
}

// Say prints one line.
func (p *progress) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ui.Say(fmt.Sprintf(format, args...))
}

// Warn prints one line in the colour of errors.
func (p *progress) Warn(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ui.Error("WARNING: " + fmt.Sprintf(format, args...))
}
