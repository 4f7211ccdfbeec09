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
	add := func(im ServiceImage, key ...string) {
		var err error
		if im.Ref, im.Digest, err = SplitImage(im.Written); err != nil {
			return // checkProject says so
		}
		im.File, im.Line = l.src.line(key...)
		if f, ok := first[im.Ref]; ok && f.Digest != im.Digest {
			l.report(key, fmt.Sprintf("%s has another digest in the service %s", im.Ref, f.Service),
				"use one digest for one reference")
		} else if !ok {
			first[im.Ref] = im
		}
		out = append(out, im)
	}
	for _, name := range order {
		s := p.Services[name]
		add(ServiceImage{Service: name, Written: s.Image}, "services", name, "image")
		for i, h := range s.PreStart {
			if h.Image != s.Image {
				add(ServiceImage{Service: name, Init: i + 1, Written: h.Image}, "services", name, "pre_start", fmt.Sprint(i), "image")
			}
		}
	}
	return out
}

// pin replaces each image by NAME@DIGEST, those of init containers too.
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
			key := []string{"services", im.Service, "image"}
			if im.Init > 0 {
				key = []string{"services", im.Service, "pre_start", fmt.Sprint(im.Init - 1), "image"}
			}
			l.report(key, err.Error(), "bake the release again")
			continue
		}
		s := p.Services[im.Service]
		for i := range s.PreStart {
			if s.PreStart[i].Image == im.Written {
				s.PreStart[i].Image = pinned
			}
		}
		if im.Init == 0 {
			s.Image = pinned
		}
		p.Services[im.Service] = s
	}
}
