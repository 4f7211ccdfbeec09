// SPDX-License-Identifier: Apache-2.0

// Package packerplugin is the Packer face of Holdfast: the source type
// "holdfast", a thin adapter over a bake. It turns HCL into a builder.Config
// (one clear error per bad key), shows the bake's progress in Packer's output,
// and hands back the output folder as an artifact. It bakes nothing itself and
// refuses to outlive Packer.
package packerplugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2/hcldec"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/holdfast/holdfast/builder"
)

// BuilderID marks artifacts of this builder for post-processors.
const BuilderID = "holdfast.builder"

// BakeFunc is builder.Bake.
type BakeFunc func(context.Context, builder.Config, builder.Progress) (*builder.Result, error)

// ErrPackerGone is why a bake was cancelled when Packer died without a word.
var ErrPackerGone = errors.New("packer is gone")

// Builder is one source block in a plugin process.
type Builder struct {
	bake BakeFunc
	os   builder.OS
	life *life

	config builder.Config
}

// New makes the component. The operating system's files come from main,
// because this package may not know the running box.
func New(bake BakeFunc, os builder.OS) *Builder {
	return &Builder{bake: bake, os: os, life: &life{gone: context.Background()}}
}

// ConfigSpec tells Packer the keys and their types.
func (b *Builder) ConfigSpec() hcldec.ObjectSpec { return new(Config).FlatMapstructure().HCL2Spec() }

// Prepare checks the configuration and does no work: `packer validate` ends here.
func (b *Builder) Prepare(raws ...any) (generated, warnings []string, err error) {
	var c Config
	if err := c.decode(raws); err != nil {
		return nil, nil, err
	}
	b.config, err = c.bake()
	if err != nil {
		return nil, nil, err
	}
	b.config.OS = b.os
	if b.config.MakeKey {
		warnings = append(warnings, fmt.Sprintf("no signing_key and signing_cert: the demo pair %s is used, and made if absent; it is not for anything you ship", b.config.SigningKey))
	}
	return nil, warnings, nil
}

// Run bakes. It ends early, with the output folder as it was, when Packer
// cancels or dies.
func (b *Builder) Run(ctx context.Context, ui packersdk.Ui, hook packersdk.Hook) (packersdk.Artifact, error) {
	ctx, done := b.life.begin(ctx)
	defer done()

	// Provisioners change a machine before it is imaged; here is none, and
	// skipping them without a word would ship a box that lacks their work.
	if err := hook.Run(ctx, packersdk.HookProvision, ui, noMachine{}, map[string]any{}); err != nil {
		return nil, err
	}
	result, err := b.bake(ctx, b.config, progress{NewLines(ui)})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, fmt.Errorf("bake stopped (%w): %s is as it was", cause, b.config.Output)
		}
		return nil, err
	}
	return newArtifact(*result), nil
}
