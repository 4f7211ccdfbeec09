// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/builder"
)

// ours is Holdfast as a vendor runs it: Packer with our plugin, in the
// checkout, with a cache and an output folder of its own.
type ours struct {
	root, dir     string // of the checkout; for what the bench makes
	lock, layout  string
	stack         string
	name, version string
	key, cert     string
	log           io.Writer
}

func (o *ours) cache() string  { return filepath.Join(o.dir, "cache") }
func (o *ours) output() string { return filepath.Join(o.dir, "out") }

// run starts one of our programs and measures it to its end.
func (o *ours) run(ctx context.Context, name string, args ...string) (sample, error) {
	bin := filepath.Join(o.root, "build", "bin")
	path := filepath.Join(bin, name)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if path, err = exec.LookPath(name); err != nil {
			return sample{}, fmt.Errorf("%w: run `make setup`", err)
		}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = o.root
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "CHECKPOINT_DISABLE=1",
		"PACKER_PLUGIN_PATH="+filepath.Join(o.root, "build", "packer-plugins"))
	var said bytes.Buffer
	out := io.MultiWriter(&said, o.log)
	cmd.Stdout, cmd.Stderr = out, out
	syscall.Sync() // nobody pays for what another left unwritten
	start := time.Now()
	err := cmd.Run()
	s := sample{wall: time.Since(start)}
	if err != nil {
		return s, fmt.Errorf("%s %v: %w: %s", name, args, err, said.String())
	}
	s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return s, nil
}

// bake is one packer build.
func (o *ours) bake(ctx context.Context, stack, lock string) (sample, *builder.Manifest, error) {
	s, err := o.run(ctx, "packer", "build", "-color=false",
		"-var", "name="+o.name, "-var", "version="+o.version,
		"-var", "stack="+stack, "-var", "lock="+lock, "-var", `layouts=["`+o.layout+`"]`,
		"-var", "signing_key="+o.key, "-var", "signing_cert="+o.cert,
		"-var", "cache="+o.cache(), "-var", "output="+o.output(),
		// The peer makes a disk only.
		"-except=holdfast-ova,holdfast-gce,holdfast-ami", "packer.pkr.hcl")
	if err != nil {
		return s, nil, err
	}
	m, err := builder.ReadManifest(o.output())
	return s, m, err
}

// chill removes all a bake made but packages and the tools tree.
func (o *ours) chill(keep ...string) error {
	if err := os.RemoveAll(o.output()); err != nil {
		return err
	}
	entries, err := os.ReadDir(o.cache())
	if err != nil {
		return err
	}
	for _, e := range entries {
		kept := false
		for _, k := range keep {
			kept = kept || e.Name() == k
		}
		if kept {
			continue
		}
		if err := os.RemoveAll(filepath.Join(o.cache(), e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// changedStack copies the stack with one more label on a service's container
// and locks it; locking is not part of what is measured.
func (o *ours) changedStack(ctx context.Context, n int) (stack, lock string, err error) {
	dir := filepath.Join(o.dir, "stack")
	if err := os.RemoveAll(dir); err != nil {
		return "", "", err
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Dir(o.stack))); err != nil {
		return "", "", err
	}
	stack = filepath.Join(dir, filepath.Base(o.stack))
	text, err := os.ReadFile(stack)
	if err != nil {
		return "", "", err
	}
	// A file at the end of the stack changes its digest whatever its form.
	text = append(text, fmt.Sprintf("\n# bench run %d\n", n)...)
	if err := os.WriteFile(stack, text, 0o644); err != nil {
		return "", "", err
	}
	lock = filepath.Join(dir, "bench.lock")
	data, err := os.ReadFile(o.lock)
	if err != nil {
		return "", "", err
	}
	if err := os.WriteFile(lock, data, 0o644); err != nil {
		return "", "", err
	}
	_, err = o.run(ctx, "holdfast-release", "lock", "--stack", stack, "--lock", lock, "--layout", o.layout, "--cache", o.cache())
	return stack, lock, err
}

// images builds the stack's own images from their packages, with nothing else
// cached.
func (o *ours) images(ctx context.Context) (sample, error) {
	if err := o.chill("debs", "tools"); err != nil {
		return sample{}, err
	}
	layout, own := filepath.Join(o.dir, "images"), filepath.Join(o.dir, "packages.json")
	if err := os.RemoveAll(layout); err != nil {
		return sample{}, err
	}
	pins, err := os.ReadFile(o.layout + ".packages.json")
	if err != nil {
		return sample{}, err
	}
	if err := os.WriteFile(own, pins, 0o644); err != nil {
		return sample{}, err
	}
	return o.run(ctx, "holdfast-release", "images", "--recipe", filepath.Join(o.root, "compose/stacks/demo/images.yaml"),
		"--version", o.version, "--layout", layout, "--pins", own, "--cache", o.cache())
}
