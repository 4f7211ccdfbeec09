// SPDX-License-Identifier: Apache-2.0

package packerplugin

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/builder"
)

// TestMain lets the test binary be the plugin too: Packer installs and runs it
// like the shipped one, with a bake that only writes files.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "describe" || os.Args[1] == "start") {
		if err := Serve(os.Args[1:], "0.1.0", New(fakeBake, builder.OS{}), nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeBake writes an output folder; a release named "hang" starts a child, says
// both process numbers, and waits to be cancelled.
func fakeBake(ctx context.Context, c builder.Config, p builder.Progress) (*builder.Result, error) {
	p.Done(builder.StepTime{Name: "root file system", Seconds: 61.25, Bytes: 576 << 20})
	p.Done(builder.StepTime{Name: "factory", Seconds: 0.04, Bytes: 80 << 20, Cached: true})
	if c.Name == "hang" {
		child := exec.CommandContext(ctx, "sleep", "infinity")
		if err := child.Start(); err != nil {
			return nil, err
		}
		p.Say("hanging %d %d end", os.Getpid(), child.Process.Pid)
		child.Wait()
		p.Say("cleaned up")
		os.WriteFile("cleaned", nil, 0o644)
		return nil, ctx.Err()
	}
	p.Warn("a warning")
	if err := os.MkdirAll(c.Output, 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{"disk.raw", "manifest.json"} {
		if err := os.WriteFile(filepath.Join(c.Output, name), []byte("{}"), 0o644); err != nil {
			return nil, err
		}
	}
	return &builder.Result{Output: c.Output, Manifest: builder.Manifest{
		Name: c.Name, Version: c.Version, RootHash: "beef", Files: []builder.ManifestFile{{Name: "disk.raw", Bytes: 2}},
	}}, nil
}
