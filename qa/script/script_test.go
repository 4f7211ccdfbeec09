// SPDX-License-Identifier: Apache-2.0

//go:build bake

package script

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts gives each session the checkout as $ROOT, and the demo's stack,
// lock and images as $STACK, $LOCK and $LAYOUT.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{
		"ROOT":   root,
		"STACK":  filepath.Join(root, "compose/stacks/demo/1.0.0/compose.yaml"),
		"LOCK":   filepath.Join(root, "build/demo-1.0.0.lock"),
		"LAYOUT": filepath.Join(root, "build/demo-1.0.0.images"),
	}
	bin := filepath.Join(root, "build/bin")
	for _, path := range []string{vars["LOCK"], vars["LAYOUT"], filepath.Join(bin, "holdfast-release")} {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%v: run `make lock` first", err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			for k, v := range vars {
				e.Setenv(k, v)
			}
			e.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			e.Setenv("PACKER_PLUGIN_PATH", filepath.Join(root, "build/packer-plugins"))
			e.Setenv("CHECKPOINT_DISABLE", "1")
			e.Setenv("HOME", e.WorkDir)
			// Packages that the lock names are already there.
			cache := os.Getenv("HOLDFAST_CACHE")
			if cache == "" {
				user, err := os.UserCacheDir()
				if err != nil {
					return err
				}
				cache = filepath.Join(user, "holdfast")
			}
			e.Setenv("HOLDFAST_CACHE", cache)
			return nil
		},
	})
}
