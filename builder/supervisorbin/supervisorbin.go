// SPDX-License-Identifier: Apache-2.0

// Package supervisorbin holds the on-box program inside the vendor's programs,
// so that a plugin is one file that bakes. The binary is a product and not in
// the source tree: it is embedded only with the build tag embed_supervisor,
// and without it this package refuses to hand out anything.
package supervisorbin

import "errors"

// ErrNone says that the running program carries no supervisor.
var ErrNone = errors.New("this program was built without the supervisor and cannot bake: use the one that `make image` puts into build/bin")

// Binary returns the supervisor, a static linux/amd64 program, or ErrNone.
func Binary() ([]byte, error) {
	if len(binary) == 0 {
		return nil, ErrNone
	}
	return binary, nil
}
