// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Image is one that RegisterImage or CopyImage made.
type Image struct {
	ID, Region, Name string
	// Snapshot of its system disk.
	Snapshot string
	// Asked is what the request said, by the model's names.
	Asked map[string]any
	polls int
}

// Images are those that were made and not deregistered, by id.
func (p *Proxy) Images() map[string]*Image {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.world.images)
}

func (p *Proxy) handleEC2(q *Request, r *http.Request, body []byte) answer {
	switch q.Op {
	case "DescribeSnapshots":
		return p.patch(p.forward(r, "/", body), "snapshotId", p.patchSnapshot)
	case "DescribeImages":
		return p.patch(p.forward(r, "/", body), "imageId", p.patchImage)
	case "RegisterImage":
		return p.registerImage(q, r, body)
	case "CopyImage":
		return p.copyImage(q, r, body)
	case "DeregisterImage":
		a := p.forward(r, "/", body)
		if a.status == 200 {
			p.mu.Lock()
			delete(p.world.images, q.Text("ImageId"))
			p.mu.Unlock()
		}
		return a
	case "DeleteSnapshot":
		return p.deleteSnapshot(q, r, body)
	// moto has neither.
	case "GetImageBlockPublicAccessState":
		return xmlAnswer("<imageBlockPublicAccessState>unblocked</imageBlockPublicAccessState>")
	case "EnableImageDeprecation":
		return xmlAnswer("<return>true</return>")
	}
	return p.forward(r, "/", body)
}

func xmlAnswer(inner string) answer {
	return answer{status: 200, body: []byte("<Response>" + inner + "</Response>")}
}

var itemRE = regexp.MustCompile(`<item>\s*<(snapshotId|imageId)>([^<]+)<`)

// patch rewrites the items of a list that the world knows more of. An item goes
// up to the next one of its kind, over the lists inside it.
func (p *Proxy) patch(a answer, key string, change func(id, item string) string) answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := string(a.body)
	starts := itemRE.FindAllStringSubmatchIndex(text, -1)
	for i := len(starts) - 1; i >= 0; i-- {
		m, end := starts[i], len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		if text[m[2]:m[3]] == key {
			// Later items keep their place: this goes from the end.
			text = text[:m[0]] + change(text[m[4]:m[5]], text[m[0]:end]) + text[end:]
		}
	}
	a.body = []byte(text)
	return a
}

func element(item, name, value string) string {
	return regexp.MustCompile(`<`+name+`>[^<]*</`+name+`>`).ReplaceAllString(item, "<"+name+">"+value+"</"+name+">")
}

// patchSnapshot lets a snapshot be pending until it was completed, and a
// little longer.
func (p *Proxy) patchSnapshot(id, item string) string {
	s := p.world.snaps[id]
	if s == nil {
		return item
	}
	if s.Complete {
		s.polls++
		s.Sealed = s.Sealed || s.polls > sealAfter
	}
	state := "pending"
	if s.Sealed {
		state = "completed"
	}
	item = element(element(item, "status", state), "encrypted", strconv.FormatBool(s.Encrypted))
	if s.Key != "" {
		item = strings.Replace(item, "</encrypted>", "</encrypted><kmsKeyId>"+s.Key+"</kmsKeyId>", 1)
	}
	return item
}

func (p *Proxy) patchImage(id, item string) string {
	im := p.world.images[id]
	if im == nil {
		return item
	}
	state := "pending"
	if im.polls++; im.polls > sealAfter {
		state = "available"
	}
	return element(element(item, "imageState", state), "snapshotId", im.Snapshot)
}

// taken is true when the account has an image of that name in the region.
func (p *Proxy) taken(region, name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, im := range p.world.images {
		if im.Region == region && im.Name == name {
			return true
		}
	}
	return false
}

// registerImage checks what moto does not: that the snapshot is there and
// complete, that the disk is not shorter, and that what it says of the machine
// goes together.
func (p *Proxy) registerImage(q *Request, r *http.Request, body []byte) answer {
	if p.taken(q.Region, q.Text("Name")) {
		return ec2Error(400, "InvalidAMIName.Duplicate", "AMI name "+q.Text("Name")+" is already in use")
	}
	device := dig(q.Params, "BlockDeviceMappings", 0, "DeviceName")
	snap := fmt.Sprint(dig(q.Params, "BlockDeviceMappings", 0, "Ebs", "SnapshotId"))
	size, _ := strconv.ParseInt(fmt.Sprint(dig(q.Params, "BlockDeviceMappings", 0, "Ebs", "VolumeSize")), 10, 64)
	p.mu.Lock()
	s := p.world.snaps[snap]
	p.mu.Unlock()
	switch {
	case s == nil || s.Region != q.Region:
		return ec2Error(400, "InvalidSnapshot.NotFound", "The snapshot does not exist.")
	case !s.Sealed:
		return ec2Error(400, "IncorrectState", "Snapshot is in invalid state - pending")
	case device != q.Params["RootDeviceName"], size < s.GiB, q.Text("UefiData") != "" && q.Text("BootMode") != "uefi", q.Text("TpmSupport") != "" && q.Text("BootMode") != "uefi":
		q.Bad = append(q.Bad, "root device, size or boot mode do not go together")
		return ec2Error(400, "InvalidParameterCombination", "root device, size or boot mode")
	}
	return p.newImage(q, r, p.forward(r, "/", body), snap)
}

func (p *Proxy) copyImage(q *Request, r *http.Request, body []byte) answer {
	token := q.Text("ClientToken")
	if token == "" {
		q.Bad = append(q.Bad, "no ClientToken: a retry would make another copy")
	}
	if a, ok := p.again(q.Region+token, string(body)); ok {
		return a
	}
	if p.taken(q.Region, q.Text("Name")) {
		return ec2Error(400, "InvalidAMIName.Duplicate", "AMI name is already in use")
	}
	a := p.newImage(q, r, p.forward(r, "/", body), "")
	if a.status == 200 {
		p.mu.Lock()
		p.world.made[q.Region+token] = made{string(body), a}
		p.mu.Unlock()
	}
	return a
}

// newImage tags an image and its snapshot, which moto does not do at once, and
// keeps it. moto makes a snapshot of its own for every image; that of a copy
// is the copy's.
func (p *Proxy) newImage(q *Request, r *http.Request, a answer, snap string) answer {
	if a.status != 200 {
		return a
	}
	var out struct {
		ImageID string `xml:"imageId"`
	}
	if err := xml.Unmarshal(a.body, &out); err != nil {
		return answer{status: 500, body: []byte(err.Error())}
	}
	im := &Image{ID: out.ImageID, Region: q.Region, Name: q.Text("Name"), Snapshot: snap, Asked: q.Params}
	if snap == "" {
		look := p.also(r, url.Values{"Action": {"DescribeImages"}, "ImageId.1": {im.ID}})
		m := regexp.MustCompile(`<snapshotId>([^<]+)</snapshotId>`).FindSubmatch(look.body)
		if m == nil {
			return answer{status: 500, body: look.body}
		}
		im.Snapshot = string(m[1])
		p.mu.Lock()
		p.world.snaps[im.Snapshot] = &Snapshot{ID: im.Snapshot, Region: q.Region, Complete: true, Put: map[int64]string{},
			Encrypted: q.Text("Encrypted") == "true", Key: q.Text("KmsKeyId")}
		p.mu.Unlock()
	}
	specs, _ := q.Params["TagSpecifications"].([]any)
	for i := range specs {
		id := map[any]string{"image": im.ID, "snapshot": im.Snapshot}[dig(q.Params, "TagSpecifications", i, "ResourceType")]
		form := url.Values{"Action": {"CreateTags"}, "ResourceId.1": {id}}
		tags, _ := dig(q.Params, "TagSpecifications", i, "Tags").([]any)
		for j := range tags {
			form.Set(fmt.Sprintf("Tag.%d.Key", j+1), fmt.Sprint(dig(tags[j], "Key")))
			form.Set(fmt.Sprintf("Tag.%d.Value", j+1), fmt.Sprint(dig(tags[j], "Value")))
		}
		if t := p.also(r, form); t.status != 200 {
			return t
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.world.images[im.ID] = im
	return a
}

func (p *Proxy) deleteSnapshot(q *Request, r *http.Request, body []byte) answer {
	id := q.Text("SnapshotId")
	p.mu.Lock()
	for _, im := range p.world.images {
		if im.Snapshot == id {
			p.mu.Unlock()
			return ec2Error(400, "InvalidSnapshot.InUse", "The snapshot is in use by "+im.ID)
		}
	}
	p.mu.Unlock()
	a := p.forward(r, "/", body)
	if a.status == 200 {
		p.mu.Lock()
		delete(p.world.snaps, id)
		p.mu.Unlock()
	}
	return a
}

// dig goes down into values by names and numbers; nil where there is nothing.
func dig(v any, path ...any) any {
	for _, p := range path {
		switch k := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[k]
		case int:
			l, _ := v.([]any)
			if k >= len(l) {
				return nil
			}
			v = l[k]
		}
	}
	return v
}
