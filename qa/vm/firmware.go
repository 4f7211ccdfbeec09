// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"os"
	"path/filepath"
)

// owner is the GUID that our enrolled keys carry; any fixed one will do.
const owner = "8c6b2a2e-6a0f-4d5c-9d3e-4a1f0b7c5e21"

// Vars makes a fresh firmware variable store dir/name.fd. With a certificate
// (PEM file) it holds that one as PK, KEK and db and has Secure Boot on: only
// what the certificate's key signed boots.
func Vars(ctx context.Context, t *Tree, dir, name, cert string) (string, error) {
	path := filepath.Join(dir, name+".fd")
	empty := t.path("usr/share/OVMF/OVMF_VARS_4M.fd")
	if cert == "" {
		data, err := os.ReadFile(empty)
		if err != nil {
			return "", err
		}
		return path, os.WriteFile(path, data, 0o600)
	}
	_, err := t.script(ctx, "virt-fw-vars", "--input", empty, "--output", path,
		"--set-pk", owner, cert, "--add-kek", owner, cert, "--add-db", owner, cert, "--secure-boot")
	return path, err
}
