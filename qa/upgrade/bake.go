// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/images/durable"
)

// config is the bake of a release; its stack folder and lock are written.
func (v *Vendor) config(s Spec) (builder.Config, error) {
	key, cert := v.pair()
	stack := v.Path("stacks", s.Version)
	c := builder.Config{
		Name: "demo", Version: s.Version,
		Stack: filepath.Join(stack, "compose.yaml"), Lock: v.Path("stacks", s.Version+".lock"),
		SigningKey: key, SigningCert: cert,
		Output: v.Path("out", "demo-"+s.Version), Cache: v.Path("cache"),
		OS: s.system(v.os),
	}
	for _, demo := range []string{"1.0.0", "1.1.0"} {
		layout := filepath.Join(v.root, "build", "demo-"+demo+".images")
		if _, err := os.Stat(layout); err != nil {
			return c, fmt.Errorf("%w: `make lock VERSION=%s` makes the images of demo %s", err, demo, demo)
		}
		c.Layouts = append(c.Layouts, layout)
	}
	if err := os.MkdirAll(v.Path("stacks"), 0o755); err != nil {
		return c, err
	}
	v.describe(&c, s)
	return c, s.stack(filepath.Join(v.root, "compose/stacks/demo"), stack)
}

// Bake makes a release, or finds it made. The folder has the release and the
// disk of a box that begins with it.
func (v *Vendor) Bake(ctx context.Context, s Spec) (*builder.Result, error) {
	c, err := v.config(s)
	if err != nil {
		return nil, err
	}
	l, err := v.relock(ctx, c, v.lock)
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", s.Version, err)
	}
	if l == nil {
		return nil, fmt.Errorf("release %s wants other packages than the base: mend its spec", s.Version)
	}
	if err := durable.WriteFile(c.Lock, l.Marshal(), 0o644); err != nil {
		return nil, err
	}
	r, err := builder.Bake(ctx, c, quiet{v.log})
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", s.Version, err)
	}
	if !r.Unchanged {
		v.log("baked %s, root hash %.16s", s.Version, r.Manifest.RootHash)
	}
	return r, nil
}

// Release is the folder of a baked release.
func Release(r *builder.Result) string { return filepath.Join(r.Output, "release") }

// quiet passes on warnings alone.
type quiet struct {
	log func(format string, args ...any)
}

func (q quiet) Say(string, ...any)              {}
func (q quiet) Warn(format string, args ...any) { q.log(format, args...) }
func (q quiet) Done(builder.StepTime)           {}
