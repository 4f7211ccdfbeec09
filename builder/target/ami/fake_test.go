// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/images/ebs"
)

// fake is EBS and EC2 as far as an upload sees them: what their references
// say, and no more.
type fake struct {
	*httptest.Server
	mu     sync.Mutex
	snaps  map[string]*fakeSnap
	images map[string]*fakeImage
	log    []string              // operation and region
	params map[string]url.Values // the last of each EC2 operation
	start  map[string]any        // the last StartSnapshot
	ids    int
	shared map[string]url.Values
	// fault answers in place of the fake when it returns true; n counts the
	// calls of the operation from 1.
	fault func(w http.ResponseWriter, r *http.Request, op string, n int) bool
	// after is called when a request was done and its answer not yet sent.
	after func(op string, n int)
	count map[string]int
	block bool // block public access
	// encrypts is encryption by default.
	encrypts bool
}

type fakeSnap struct {
	id, region, status, token, body, parent string
	gib                                     int64
	blocks                                  map[int32]ebs.Sum
	put                                     map[int32]ebs.Sum
	tags                                    map[string]string
	started                                 time.Time
	polls                                   int
}

type fakeImage struct {
	id, region, name, snap, token string
	tags                          map[string]string
	polls                         int
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{snaps: map[string]*fakeSnap{}, images: map[string]*fakeImage{}, params: map[string]url.Values{}, count: map[string]int{}, shared: map[string]url.Values{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

// meet sets fault, watch sets after.
func (f *fake) meet(fault func(w http.ResponseWriter, r *http.Request, op string, n int) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *fake) watch(after func(op string, n int)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = after
}

// scope is the region that a request is signed for.
func scope(r *http.Request) string {
	_, s, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	if p := strings.Split(s, "/"); len(p) > 2 {
		return p[2]
	}
	return ""
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	var op string
	switch {
	case parts[0] != "snapshots":
		r.Form, _ = url.ParseQuery(string(body))
		op = r.Form.Get("Action")
	case len(parts) == 1:
		op = "StartSnapshot"
	case parts[1] == "completion":
		op = "CompleteSnapshot"
	case len(parts) == 4 && r.Method == http.MethodPut:
		op = "PutSnapshotBlock"
	case len(parts) == 4:
		op = "GetSnapshotBlock"
	default:
		op = "ListSnapshotBlocks"
	}
	f.mu.Lock()
	f.count[op]++
	n, fault := f.count[op], f.fault
	f.log = append(f.log, op+" "+scope(r))
	f.mu.Unlock()
	if fault != nil && fault(w, r, op, n) {
		return
	}
	f.mu.Lock()
	if parts[0] == "snapshots" {
		f.ebs(w, r, op, parts, body)
	} else {
		f.params[op] = r.Form
		f.ec2(w, r, op)
	}
	after := f.after
	f.mu.Unlock()
	if after != nil {
		after(op, n)
	}
}

func ebsError(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("X-Amzn-Errortype", kind)
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"Message":%q}`, message)
}

func ec2Error(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>r</RequestID></Response>`, code, message)
}

func (f *fake) id(kind string) string {
	f.ids++
	return fmt.Sprintf("%s-%017x", kind, f.ids)
}

func (f *fake) ebs(w http.ResponseWriter, r *http.Request, op string, parts []string, body []byte) {
	if op == "StartSnapshot" {
		f.startSnapshot(w, r, body)
		return
	}
	s := f.snaps[parts[1]]
	if op == "CompleteSnapshot" {
		s = f.snaps[parts[2]]
	}
	if s == nil {
		ebsError(w, 404, "ResourceNotFoundException", "The snapshot does not exist.")
		return
	}
	if pending := s.status == "pending"; pending != strings.HasPrefix(op, "Put") && pending != (op == "CompleteSnapshot") {
		ebsError(w, 400, "ValidationException", "The snapshot is "+s.status)
		return
	}
	switch op {
	case "PutSnapshotBlock":
		i, _ := strconv.Atoi(parts[3])
		sum := ebs.Sum(sha256.Sum256(body))
		if r.Header.Get("X-Amz-Checksum") != sum.String() || r.Header.Get("X-Amz-Data-Length") != "524288" || len(body) != ebs.BlockSize {
			ebsError(w, 400, "ValidationException", "bad block")
			return
		}
		s.put[int32(i)] = sum
		s.blocks[int32(i)] = sum
		w.Header().Set("X-Amz-Checksum", sum.String())
		w.WriteHeader(201)
		io.WriteString(w, "{}")
	case "CompleteSnapshot":
		h := sha256.New()
		for _, i := range slices.Sorted(maps.Keys(s.put)) {
			sum := s.put[i]
			h.Write(sum[:])
		}
		if r.Header.Get("X-Amz-Changedblockscount") != strconv.Itoa(len(s.put)) || r.Header.Get("X-Amz-Checksum") != base64.StdEncoding.EncodeToString(h.Sum(nil)) ||
			r.Header.Get("X-Amz-Checksum-Aggregation-Method") != "LINEAR" {
			ebsError(w, 400, "ValidationException", "count or checksum do not fit")
			return
		}
		s.status = "completed"
		w.WriteHeader(202)
		io.WriteString(w, `{"Status":"pending"}`)
	case "ListSnapshotBlocks":
		var list []map[string]any
		for i := range s.blocks {
			list = append(list, map[string]any{"BlockIndex": i, "BlockToken": "t"})
		}
		json.NewEncoder(w).Encode(map[string]any{"Blocks": list, "BlockSize": ebs.BlockSize, "VolumeSize": s.gib})
	default:
		ebsError(w, 400, "ValidationException", "not in this fake")
	}
}

func (f *fake) startSnapshot(w http.ResponseWriter, r *http.Request, body []byte) {
	var in struct {
		VolumeSize                    int64
		ClientToken, ParentSnapshotId string
		Tags                          []struct{ Key, Value string }
	}
	json.Unmarshal(body, &in)
	json.Unmarshal(body, &f.start)
	var s *fakeSnap
	for _, old := range f.snaps {
		if old.token == in.ClientToken {
			s = old
		}
	}
	switch {
	case s != nil && s.body != string(body):
		ebsError(w, 409, "ConflictException", "other parameters")
		return
	case s == nil:
		s = &fakeSnap{id: f.id("snap"), region: scope(r), status: "pending", token: in.ClientToken, body: string(body), gib: in.VolumeSize,
			blocks: map[int32]ebs.Sum{}, put: map[int32]ebs.Sum{}, tags: map[string]string{}, started: time.Now(), parent: in.ParentSnapshotId}
		if p := f.snaps[s.parent]; p != nil {
			maps.Copy(s.blocks, p.blocks)
		}
		for _, t := range in.Tags {
			s.tags[t.Key] = t.Value
		}
		f.snaps[s.id] = s
	}
	out := map[string]any{"SnapshotId": s.id, "Status": "pending", "BlockSize": ebs.BlockSize, "VolumeSize": s.gib}
	if f.encrypts {
		out["KmsKeyArn"] = "arn:aws:kms:eu-central-1:123456789012:key/1"
	}
	w.WriteHeader(201)
	json.NewEncoder(w).Encode(out)
}

func (f *fake) ec2(w http.ResponseWriter, r *http.Request, op string) {
	var b bytes.Buffer
	region := scope(r)
	switch op {
	case "DescribeSnapshots":
		f.describeSnapshots(w, &b, r.Form, region)
	case "DescribeImages":
		b.WriteString("<imagesSet>")
		for _, id := range slices.Sorted(maps.Keys(f.images)) {
			im := f.images[id]
			name, tag, value := filters(r.Form)
			if im.region != region || r.Form.Get("ImageId.1") != "" && r.Form.Get("ImageId.1") != id || name != "" && name != im.name || tag != "" && im.tags[tag] != value {
				continue
			}
			state := "available"
			if im.polls++; im.polls < 3 {
				state = "pending"
			}
			fmt.Fprintf(&b, `<item><imageId>%s</imageId><imageState>%s</imageState><name>%s</name><blockDeviceMapping><item><ebs><snapshotId>%s</snapshotId></ebs></item></blockDeviceMapping>%s</item>`, id, state, im.name, im.snap, tagXML(im.tags))
		}
		b.WriteString("</imagesSet>")
	case "RegisterImage", "CopyImage":
		for _, im := range f.images {
			if im.token != "" && im.token == r.Form.Get("ClientToken") {
				fmt.Fprintf(w, `<R><imageId>%s</imageId></R>`, im.id)
				return
			}
			if im.name == r.Form.Get("Name") && im.region == region {
				ec2Error(w, 400, "InvalidAMIName.Duplicate", "AMI name is in use")
				return
			}
		}
		im := &fakeImage{id: f.id("ami"), region: region, name: r.Form.Get("Name"), token: r.Form.Get("ClientToken"), snap: r.Form.Get("BlockDeviceMapping.1.Ebs.SnapshotId"), tags: formTags(r.Form, "image")}
		if op == "CopyImage" {
			s := &fakeSnap{id: f.id("snap"), region: region, status: "completed", tags: formTags(r.Form, "snapshot")}
			f.snaps[s.id], im.snap = s, s.id
		}
		f.images[im.id] = im
		fmt.Fprintf(&b, `<imageId>%s</imageId>`, im.id)
	case "DeregisterImage":
		id := r.Form.Get("ImageId")
		if f.images[id] == nil {
			ec2Error(w, 400, "InvalidAMIID.NotFound", "no such image")
			return
		}
		delete(f.images, id)
	case "DeleteSnapshot":
		id := r.Form.Get("SnapshotId")
		for _, im := range f.images {
			if im.snap == id {
				ec2Error(w, 400, "InvalidSnapshot.InUse", "in use by "+im.id)
				return
			}
		}
		if f.snaps[id] == nil {
			ec2Error(w, 400, "InvalidSnapshot.NotFound", "no such snapshot")
			return
		}
		delete(f.snaps, id)
	case "ModifyImageAttribute", "ModifySnapshotAttribute", "EnableImageDeprecation":
		f.shared[op+" "+region] = r.Form
	case "GetImageBlockPublicAccessState":
		state := "unblocked"
		if f.block {
			state = "block-new-sharing"
		}
		fmt.Fprintf(&b, "<imageBlockPublicAccessState>%s</imageBlockPublicAccessState>", state)
	default:
		ec2Error(w, 400, "InvalidAction", op)
		return
	}
	fmt.Fprintf(w, "<R>%s<return>true</return></R>", b.String())
}

func (f *fake) describeSnapshots(w http.ResponseWriter, b *bytes.Buffer, form url.Values, region string) {
	b.WriteString("<snapshotSet>")
	want := form.Get("SnapshotId.1")
	if s := f.snaps[want]; want != "" && (s == nil || s.region != region) {
		b.Reset()
		w.WriteHeader(400)
		b.WriteString(`<Errors><Error><Code>InvalidSnapshot.NotFound</Code><Message>no</Message></Error></Errors>`)
		return
	}
	for _, id := range slices.Sorted(maps.Keys(f.snaps)) {
		s := f.snaps[id]
		_, tag, value := filters(form)
		if s.region != region || want != "" && want != id || tag != "" && s.tags[tag] != value {
			continue
		}
		state := s.status
		if state == "completed" && want != "" {
			if s.polls++; s.polls < 3 {
				state = "pending"
			}
		}
		fmt.Fprintf(b, `<item><snapshotId>%s</snapshotId><status>%s</status><volumeSize>%d</volumeSize><startTime>%s</startTime><encrypted>false</encrypted>%s</item>`,
			id, state, s.gib, s.started.UTC().Format(time.RFC3339Nano), tagXML(s.tags))
	}
	b.WriteString("</snapshotSet>")
}

func filters(form url.Values) (name, tag, value string) {
	n, v := form.Get("Filter.1.Name"), form.Get("Filter.1.Value.1")
	if n == "name" {
		return v, "", ""
	}
	return "", strings.TrimPrefix(n, "tag:"), v
}

func tagXML(tags map[string]string) string {
	var b strings.Builder
	for k, v := range tags {
		fmt.Fprintf(&b, "<item><key>%s</key><value>%s</value></item>", k, v)
	}
	return "<tagSet>" + b.String() + "</tagSet>"
}

func formTags(form url.Values, kind string) map[string]string {
	tags := map[string]string{}
	for i := 1; ; i++ {
		p := fmt.Sprintf("TagSpecification.%d.", i)
		if form.Get(p+"ResourceType") == "" {
			return tags
		}
		for j := 1; form.Get(p+"ResourceType") == kind && form.Get(fmt.Sprintf("%sTag.%d.Key", p, j)) != ""; j++ {
			tags[form.Get(fmt.Sprintf("%sTag.%d.Key", p, j))] = form.Get(fmt.Sprintf("%sTag.%d.Value", p, j))
		}
	}
}
