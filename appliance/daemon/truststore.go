// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"path/filepath"

	"github.com/holdfast/holdfast/compose/trust"
	"github.com/holdfast/holdfast/images/durable"
)

// openTrust opens what this box trusts, below its state folder.
func openTrust(state string, sealed []byte) (*trust.Store, error) {
	store, err := trust.Open(filepath.Join(state, "trust"), sealed)
	if err == nil {
		store.Write = func(path string, data []byte) error { return durable.WriteFile(path, data, 0o644) }
	}
	return store, err
}
