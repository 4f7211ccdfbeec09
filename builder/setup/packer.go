// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"

	"github.com/holdfast/holdfast/images/durable"
)

// oldest is the oldest Packer that installs a plugin from a file with a
// release version and runs it offline, [major, minor].
var oldest = [2]int{1, 11}

var (
	packerSays   = regexp.MustCompile(`(?m)^Packer v(\d{1,4})\.(\d{1,4})\.\d+`)
	packerPinned = regexp.MustCompile(`(?m)^\s*(?:require )?github\.com/hashicorp/packer (v\d+\.\d+\.\d+)`)
)

// newEnough reads the output of `packer version`. Some hosts have another
// program of that name (cracklib's), so anything else is not Packer.
func newEnough(output string) bool {
	m := packerSays.FindStringSubmatch(output)
	if m == nil {
		return false
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return major > oldest[0] || major == oldest[0] && minor >= oldest[1]
}

// packer makes build/bin/packer: a link to a Packer that is on the PATH, or to
// the pinned one, built once into the cache.
func packer(ctx context.Context, o Options) error {
	path, err := findPacker(ctx, o)
	if err != nil {
		return err
	}
	link := o.bin("packer")
	if now, err := os.Readlink(link); err == nil && now == path {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(path, link)
}

func findPacker(ctx context.Context, o Options) (string, error) {
	for _, path := range onPathAll("packer") {
		// Ours is only a link to one of the others.
		if path == o.bin("packer") {
			continue
		}
		if out, err := output(ctx, packerEnv(o), path, "version"); err == nil && newEnough(out) {
			return path, nil
		}
	}
	mod := filepath.Join(o.Dir, "builder", "packer")
	text, err := os.ReadFile(filepath.Join(mod, "go.mod"))
	if err != nil {
		return "", err
	}
	pin := packerPinned.FindSubmatch(text)
	if pin == nil {
		return "", fmt.Errorf("%s/go.mod pins no Packer", mod)
	}
	path := filepath.Join(o.Cache, "packer", string(pin[1]), "packer")
	if out, err := output(ctx, packerEnv(o), path, "version"); err == nil && newEnough(out) {
		return path, nil
	}
	o.say("No Packer %d.%d or newer on the PATH: building Packer %s, once, some minutes", oldest[0], oldest[1], pin[1])
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	making := path + ".making"
	if err := goBuild(ctx, o, mod, making, "github.com/hashicorp/packer"); err != nil {
		return "", fmt.Errorf("building Packer %s failed; install Packer %d.%d or newer by hand, or mend this: %w", pin[1], oldest[0], oldest[1], err)
	}
	return path, durable.Rename(making, path)
}

// packerEnv keeps Packer off the network and away from the user's own plugins.
func packerEnv(o Options) []string {
	return append(os.Environ(), "CHECKPOINT_DISABLE=1", "PACKER_PLUGIN_PATH="+pluginDir(o))
}

func pluginDir(o Options) string { return filepath.Join(o.Dir, "build", "packer-plugins") }

// pluginFile is the name Packer gives an installed plugin of this version, API
// x5.0.
func pluginFile(o Options, version string) string {
	return filepath.Join(pluginDir(o), "github.com", "holdfast", "holdfast",
		fmt.Sprintf("packer-plugin-holdfast_v%s_x5.0_%s_%s", version, runtime.GOOS, runtime.GOARCH))
}
