// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/holdfast/holdfast/images/durable"
)

const (
	keptID = "/var/lib/holdfast/identity/machine-id"
	// runtimeID is the file that PID 1 made and bound over /etc/machine-id
	// because /etc is sealed (machine-id(5)).
	runtimeID = "/run/machine-id"
	etcID     = "/etc/machine-id"
)

var idShape = regexp.MustCompile(`^[0-9a-f]{32}$`)

// IDs are the two machine ids of a boot: 32 hex digits, or "".
type IDs struct {
	// Running is what PID 1 took from the firmware or made up.
	Running string
	// Kept is that of the first boot, "" at the first boot.
	Kept string
}

// ChooseID says which id the box has, and whether it has to be kept first or
// put in place. It is pure. The first boot's id wins for ever: journal, DHCP
// identity and IPv6 addresses hang on it.
func ChooseID(ids IDs) (id string, keep, replace bool) {
	if ids.Kept == "" {
		return ids.Running, true, false
	}
	return ids.Kept, false, ids.Kept != ids.Running
}

// Identity gives the box the machine id of its first boot. It runs after /var
// is there and before the journal is flushed to it and the network starts.
func Identity(ctx context.Context, env Env) error {
	var ids IDs
	var err error
	if ids.Running, err = readID(env.path(etcID)); err != nil {
		return err
	}
	if ids.Kept, err = readID(env.path(keptID)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("%w; this boot goes by %s. Write the box's machine id back into the file, or remove it to take a new one", err, ids.Running)
	}
	id, keep, replace := ChooseID(ids)
	if keep {
		return keepID(env, id)
	}
	if !replace {
		return nil
	}
	// In place: the file is bound over /etc/machine-id, a new one would not
	// be seen there. Same length, one write. A cut here is no matter, the
	// file is gone with the boot.
	if err := overwrite(env.path(runtimeID), id+"\n"); err != nil {
		return fmt.Errorf("put the kept machine id in place: %w", err)
	}
	if now, err := readID(env.path(etcID)); err != nil || now != id {
		return fmt.Errorf("%s is %q after %s was written, want %s", etcID, now, runtimeID, id)
	}
	// Both read the id once when they start; PID 1 first, because journald's
	// unit is started by it.
	return env.act(ctx, []Step{
		{Argv: []string{"systemctl", "daemon-reexec"}},
		{Argv: []string{"systemctl", "restart", "systemd-journald.service"}},
	})
}

func keepID(env Env, id string) error {
	name := env.path(keptID)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := durable.WriteFile(name, []byte(id+"\n"), 0o444); err != nil {
		return err
	}
	// The folders' own names too, or a cut loses the file with them.
	for _, dir := range []string{"/var/lib/holdfast", "/var/lib", "/var"} {
		if err := durable.SyncDir(env.path(dir)); err != nil {
			return err
		}
	}
	return nil
}

func readID(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return "", err
	}
	id := strings.TrimSuffix(string(data), "\n")
	if !idShape.MatchString(id) || strings.Trim(id, "0") == "" {
		return "", fmt.Errorf("%s: %q is not a machine id (32 hex digits)", name, id)
	}
	return id, nil
}

func overwrite(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
