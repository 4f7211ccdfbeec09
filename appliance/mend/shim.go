// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrNoShim means that no process of this machine is a container's shim: it
// is gone already, or the engine runs elsewhere.
var ErrNoShim = errors.New("the container has no shim here")

// KillShim kills the process that stands between containerd and a container's
// own, found below root ("" is the machine's) by the container's whole id.
// containerd then ends the container and tells the engine. It is for a
// container that the engine cannot end, because its shim does not answer.
func KillShim(root, container string) error {
	pid, err := shim(root, container)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

func shim(root, container string) (int, error) {
	if len(container) != 64 {
		return 0, fmt.Errorf("%q is no whole container id", container)
	}
	procs, err := filepath.Glob(filepath.Join("/", root, "proc/[0-9]*"))
	if err != nil {
		return 0, err
	}
	for _, p := range procs {
		line, err := os.ReadFile(filepath.Join(p, "cmdline"))
		if err != nil {
			continue // ended meanwhile
		}
		var argv []string
		for a := range bytes.SplitSeq(line, []byte{0}) {
			argv = append(argv, string(a))
		}
		i := slices.Index(argv, "-id")
		if !strings.HasPrefix(filepath.Base(argv[0]), "containerd-shim") || i < 0 || i+1 >= len(argv) || argv[i+1] != container {
			continue
		}
		return strconv.Atoi(filepath.Base(p))
	}
	return 0, ErrNoShim
}
