// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"

	"github.com/compose-spec/compose-go/v2/types"
)

// images finds where each service names its image, in start order, and
// refuses two digests for one reference: a lock has one.
func (l *loading) images(p *types.Project, order []string) []ServiceImage {
	var out []ServiceImage
	first := map[string]ServiceImage{}
	for _, name := range order {
		ref, dgst, err := SplitImage(p.Services[name].Image)
		if err != nil {
			continue // checkProject says so
		}
		im := ServiceImage{Service: name, Written: p.Services[name].Image, Ref: ref, Digest: dgst}
		im.File, im.Line = l.src.line("services", name, "image")
		if f, ok := first[ref]; ok && f.Digest != dgst {
			l.report([]string{"services", name, "image"}, fmt.Sprintf("%s has another digest in the service %s", ref, f.Service),
				"use one digest for one reference")
		} else if !ok {
			first[ref] = im
		}
		out = append(out, im)
	}
	return out
}

// pin replaces each service's image by NAME@DIGEST.
func (l *loading) pin(p *types.Project, images []ServiceImage, digests map[string]string) {
	for _, im := range images {
		var pinned string
		var err error
		if d, ok := digests[im.Ref]; !ok {
			err = fmt.Errorf("%s is not among the release's images", im.Ref)
		} else {
			pinned, err = PinnedName(im.Ref, d)
		}
		if err != nil {
			l.report([]string{"services", im.Service, "image"}, err.Error(), "bake the release again")
			continue
		}
		s := p.Services[im.Service]
		s.Image = pinned
		p.Services[im.Service] = s
	}
}
