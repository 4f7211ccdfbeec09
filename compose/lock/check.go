// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/holdfast/holdfast/compose/stack"
)

// Check says whether a lock is the stack's: same name, same folder by digest,
// same images. A nil lock never is: the error then names each image that
// nothing pins. The error is a *stack.Problems.
func Check(l *Lock, s *stack.Stack) error {
	ps := &stack.Problems{}
	if l == nil {
		for _, im := range s.ServiceImages() {
			if im.Digest == "" {
				ps.List = append(ps.List, stack.Problem{File: im.File, Line: im.Line, Key: "services." + im.Service + ".image",
					Text: im.Written + " has no digest and there is no lock", Mend: relock})
			}
		}
		if len(ps.List) == 0 {
			ps.List = append(ps.List, stack.Problem{File: s.File, Text: "there is no lock to pin the packages", Mend: relock})
		}
		return ps
	}
	bad := func(key, text string) {
		ps.List = append(ps.List, stack.Problem{File: cmp.Or(l.name, "lock"), Key: key, Text: text, Mend: relock})
	}
	if l.Stack.Name != s.Name {
		bad("stack.name", fmt.Sprintf("the lock is of the stack %s, not of %s", l.Stack.Name, s.Name))
	}
	digest, err := s.Digest()
	if err != nil {
		return err
	}
	refs := map[string]bool{}
	for _, im := range s.ServiceImages() {
		refs[im.Ref] = true
		if _, ok := l.Digests()[im.Ref]; !ok {
			ps.List = append(ps.List, stack.Problem{File: im.File, Line: im.Line, Key: "services." + im.Service + ".image",
				Text: im.Ref + " is not in the lock", Mend: relock})
		}
	}
	for _, im := range l.Images {
		if !refs[im.Ref] {
			bad("images", im.Ref+" is locked and the stack does not name it")
		}
	}
	if l.Stack.Digest != digest {
		bad("stack.digest", fmt.Sprintf("the stack has changed since it was locked: its folder is now %s, locked is %s", digest, l.Stack.Digest))
	}
	if len(ps.List) > 0 {
		return ps
	}
	return nil
}

// Digests maps each image's reference to its digest.
func (l *Lock) Digests() map[string]string {
	out := make(map[string]string, len(l.Images))
	for _, im := range l.Images {
		out[im.Ref] = im.Digest
	}
	return out
}

// sortImages sorts by reference and drops repeats.
func sortImages(images []Image) []Image {
	slices.SortFunc(images, func(a, b Image) int { return cmp.Compare(a.Ref, b.Ref) })
	return slices.Compact(images)
}
