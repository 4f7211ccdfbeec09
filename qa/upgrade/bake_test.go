// SPDX-License-Identifier: Apache-2.0

//go:build vm

package upgrade

import (
	"os"
	"testing"

	"github.com/holdfast/holdfast/builder/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.Child()
	os.Exit(m.Run())
}

// TestRoots: releases that differ in the stack alone share a root, to the bit;
// those with a variant have each its own.
func TestRoots(t *testing.T) {
	v, err := OpenVendor(t.Context(), "../..", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	roots := map[string]string{}
	for _, s := range Quick {
		r, err := v.Bake(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		hash := r.Manifest.RootHash
		if s.Variant == "" {
			s.Variant = "the base's"
		}
		for other, variant := range roots {
			if (other == hash) != (variant == s.Variant) {
				t.Errorf("%s has root %.12s of variant %s, %s is the root of variant %s", s.Version, hash, s.Variant, other, variant)
			}
		}
		roots[hash] = s.Variant
	}
}
