// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

// ErrNoData is returned by CheckData where the data is not mounted as it must
// be.
var ErrNoData = errors.New("the data of the committed generation is not mounted")

// CheckData says whether Data did its work for gen, by what the kernel has
// mounted below root ("" on a box): the generation's own volume, in the home
// that Data named, at place, and its volumes where Docker keeps them. An empty
// folder in either place would take new data and hide the old.
func CheckData(root string, home status.DataDisk, gen slot.Generation, place string) error {
	if home.Volume != gen.Data {
		return fmt.Errorf("%w: volume %q is in use, and the record names %s", ErrNoData, home.Volume, gen.Data)
	}
	m, err := readMounts(filepath.Join("/", root, "proc/self/mountinfo"))
	if err != nil {
		return err
	}
	want := mapperName(home.Group, gen.Data)
	for _, c := range []struct{ place, dir string }{{place, "/"}, {volumesPlace, "/volumes"}} {
		at, ok := m[c.place]
		if !ok {
			return fmt.Errorf("%w: nothing is mounted at %s", ErrNoData, c.place)
		}
		// By number, not by the name in the mount table: that is only what
		// was given to mount.
		b, err := os.ReadFile(filepath.Join("/", root, "sys/dev/block", at.dev, "dm/name"))
		if err != nil {
			return fmt.Errorf("%w: %s is device %s, no logical volume (%v)", ErrNoData, c.place, at.dev, err)
		}
		if name := strings.TrimSpace(string(b)); name != want || at.dir != c.dir {
			return fmt.Errorf("%w: %s shows %s of volume %s, want %s of %s", ErrNoData, c.place, at.dir, name, c.dir, want)
		}
	}
	return nil
}

// mountedAt is one mount: MAJOR:MINOR, and the folder of that file system.
type mountedAt struct{ dev, dir string }

// readMounts maps mount points to what is mounted last, on top.
func readMounts(name string) (map[string]mountedAt, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	out := map[string]mountedAt{}
	for line := range strings.SplitSeq(string(data), "\n") {
		// proc(5): id parent major:minor root mountpoint options ...
		if f := strings.Fields(line); len(f) > 5 {
			out[f[4]] = mountedAt{f[2], f[3]}
		}
	}
	return out, nil
}
