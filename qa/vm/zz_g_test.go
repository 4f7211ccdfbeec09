// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"testing"

	"github.com/holdfast/holdfast/qa/upgrade"
)

func TestZZBake(t *testing.T) {
	v, err := upgrade.OpenVendor(t.Context(), "../..", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(upgrade.Quick, upgrade.Hang) {
		if _, err := v.Bake(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}
