// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot/slottest"
	"github.com/holdfast/holdfast/images/gpt"
)

// TestNameSlot: the other slot gets the id that the command line of a kernel
// image with that root hash names, and no other does.
func TestNameSlot(t *testing.T) {
	root := slottest.Box(t, "root-a", "esp", "root-a", "root-b", "state")
	r, err := Running(root)
	if err != nil {
		t.Fatal(err)
	}
	before, err := r.table(root)
	if err != nil {
		t.Fatal(err)
	}
	hash := "00112233445566778899aabbccddeeff" + strings.Repeat("0", 32)
	if err := r.NameSlot(root, "B", hash); err != nil {
		t.Fatal(err)
	}
	after, err := r.table(root)
	if err != nil {
		t.Fatal(err)
	}
	want := gpt.MustGUID("00112233-4455-6677-8899-aabbccddeeff")
	for i, p := range after.Parts {
		if p.Label == "root-b" {
			if p.UUID != want {
				t.Errorf("slot B has the id %s, want %s", p.UUID, want)
			}
			p.UUID = before.Parts[i].UUID
		}
		if p != before.Parts[i] {
			t.Errorf("partition %s was changed", p.Label)
		}
	}
	for letter, hash := range map[string]string{"A": hash, "C": hash, "B": "beef"} {
		if err := r.NameSlot(root, letter, hash); err == nil {
			t.Errorf("slot %s with root hash %s was named", letter, hash)
		}
	}
}
