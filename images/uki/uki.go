// SPDX-License-Identifier: Apache-2.0

// Package uki takes unified kernel images apart. Making them is ukify's work,
// in the tools tree: its output is the same bytes for the same inputs, and
// systemd keeps it in step with its stub.
//
// Format: UAPI Group "Unified Kernel Image (UKI)" specification.
package uki

import (
	"fmt"

	"github.com/holdfast/holdfast/images/pe"
)

// Sections gives the content of each section of a UKI by name, such as ".linux",
// ".initrd", ".cmdline", ".osrel"; the slices alias b. It refuses an EFI program
// without .linux, and one with two sections of a name (a multi-profile UKI),
// because which one counts would then depend on the boot menu.
func Sections(b []byte) (map[string][]byte, error) {
	f, err := pe.Parse(b)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte, len(f.Sections))
	for _, s := range f.Sections {
		if _, twice := out[s.Name]; twice {
			return nil, fmt.Errorf("uki: two sections %q: multi-profile images are not taken", s.Name)
		}
		out[s.Name] = s.Data
	}
	if out[".linux"] == nil {
		return nil, fmt.Errorf("uki: an EFI program without .linux is no unified kernel image")
	}
	return out, nil
}
