// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/images/durable"
)

// hostKeyPath is the box's, made once: admins know the box by it, so it lies
// on state and survives upgrades. sshd_config names it.
const hostKeyPath = "/var/lib/holdfast/ssh/ssh_host_ed25519_key"

// maxKeyFile bounds a host key file in bytes; ours have some 400.
const maxKeyFile = 16 << 10

// ensureHostKey makes the host key, if it was not made yet. One that is there
// and can't be read is never replaced: admins would be warned of an attack.
func ensureHostKey(env Env) error {
	name := env.path(hostKeyPath)
	_, err := hostKey(env.Root)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	if err := makeDir(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if err := durable.WriteNew(name, pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	// The folder's own name too, or a cut loses the key with it.
	if err := durable.SyncDir(filepath.Dir(filepath.Dir(name))); err != nil {
		return err
	}
	key, err := hostKey(env.Root)
	if err != nil {
		return err
	}
	env.say("the ssh host key was made, %s", ssh.FingerprintSHA256(key))
	return nil
}

// hostKey is the public half of the host key.
func hostKey(root string) (ssh.PublicKey, error) {
	name := filepath.Join("/", root, hostKeyPath)
	data, err := readBounded(name, maxKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s is no ssh host key: %w; restore it from a backup, or remove it to have a new one made at the next boot", name, err)
	}
	return key.PublicKey(), nil
}

// access says who gets in, as far as files tell.
func access(root string) status.SSH {
	a := status.SSH{Keys: []string{}}
	data, err := readBounded(filepath.Join("/", root, keysPath), 1<<20)
	if err != nil {
		return a
	}
	for line := range strings.Lines(string(data)) {
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err == nil {
			a.Keys = append(a.Keys, ssh.FingerprintSHA256(key))
		}
	}
	if key, err := hostKey(root); err == nil {
		a.HostKey = ssh.FingerprintSHA256(key)
		a.Enabled = len(a.Keys) > 0
	}
	return a
}

func readBounded(name string, limit int64) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", name, limit)
	}
	return os.ReadFile(name)
}
