// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/builder/version"
)

// programs builds the supervisor, and the vendor's two programs with the
// supervisor inside.
func programs(ctx context.Context, o Options) error {
	if err := goBuild(ctx, o, o.Dir, filepath.Join(o.Dir, "builder", "supervisorbin", "holdfast"), "./appliance/cmd/holdfast"); err != nil {
		return err
	}
	for _, name := range []string{"packer-plugin-holdfast", "holdfast-release"} {
		if err := goBuild(ctx, o, o.Dir, o.bin(name), "-tags=embed_supervisor", "./builder/cmd/"+name); err != nil {
			return err
		}
	}
	return nil
}

// goBuild builds for the box and for C2: the same source and toolchain give
// the same bytes in any folder on any amd64 host.
func goBuild(ctx context.Context, o Options, dir, out string, args ...string) error {
	env := append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off")
	return run(ctx, o, env, append([]string{"go", "-C", dir, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out}, args...)...)
}

// plugin installs the plugin with Packer's own command, where that has not
// been done for these very bytes.
func plugin(ctx context.Context, o Options) error {
	installed := pluginFile(o, version.Version)
	same, err := sameFile(o.bin("packer-plugin-holdfast"), installed)
	if err != nil || same {
		return err
	}
	// Packer writes into the file that is there, which fails while a bake
	// runs from it.
	if err := os.Remove(installed); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return run(ctx, o, packerEnv(o), o.bin("packer"), "plugins", "install", "--force", "--path", o.bin("packer-plugin-holdfast"), "github.com/holdfast/holdfast")
}

// sameFile compares two files' bytes; a missing second one is different.
func sameFile(a, b string) (bool, error) {
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer fb.Close()
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, errA := io.ReadFull(fa, bufA)
		m, errB := io.ReadFull(fb, bufB)
		if n != m || !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			end := func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
			if end(errA) && end(errB) {
				return true, nil
			}
			return false, errors.Join(errA, errB)
		}
	}
}
