// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/api/compute/v1"
)

// cloud stands in for Compute Engine and Cloud Storage: one project, one
// bucket. Every request is held against Google's own description of the API.
type cloud struct {
	t      testing.TB
	url    string
	server *httptest.Server

	mu       sync.Mutex
	images   map[string]*compute.Image
	policies map[string]*compute.Policy
	ops      map[string]*operation
	objects  map[string]*stored
	sessions map[string]*stored
	inserted []map[string]any // bodies of images.insert
	calls    []string
	// faults are consumed one a request of that method.
	faults map[string][]fault
	// polls that an operation takes, and looks until an image is ready.
	polls, looks int
	opError      *compute.OperationError
	generation   int64
	requestIDs   map[string]string // requestId -> operation
	notReady     int               // deletes of an image that are refused
	hung         chan struct{}     // closed when a request hangs
	exists       func(object string) bool
	corrupt      bool // what arrives is not what was sent
}

type operation struct {
	compute.Operation
	polls int
	then  func()
}

type stored struct {
	name       string
	data       []byte
	metadata   map[string]string
	generation int64
	total      int64
}

// fault is what goes wrong with a request: a status, or one of the words.
type fault struct {
	status  int
	reason  string
	message string
	// what: "hang" never answers, "cut" breaks the connection before the
	// request is read, "lose" does the work and breaks the connection then.
	what string
}

func newCloud(t testing.TB) *cloud {
	c := &cloud{
		t: t, images: map[string]*compute.Image{}, policies: map[string]*compute.Policy{}, ops: map[string]*operation{},
		objects: map[string]*stored{}, sessions: map[string]*stored{}, faults: map[string][]fault{}, requestIDs: map[string]string{},
		polls: 2, looks: 1, hung: make(chan struct{}),
	}
	c.exists = func(object string) bool { return c.objects[object] != nil }
	c.server = httptest.NewServer(c)
	c.url = c.server.URL
	t.Cleanup(c.server.Close)
	return c
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer secret" {
		c.fail(w, fault{status: 401, reason: "authError", message: "Invalid Credentials"})
		return
	}
	id, handle, err := c.route(r)
	if err != nil {
		c.t.Errorf("%v", err)
		c.fail(w, fault{status: 400, message: err.Error()})
		return
	}
	c.mu.Lock()
	c.calls = append(c.calls, id)
	var f fault
	if q := c.faults[id]; len(q) > 0 {
		f, c.faults[id] = q[0], q[1:]
	}
	c.mu.Unlock()
	switch {
	case f.status != 0:
		c.fail(w, f)
	case f.what == "hang":
		_, _ = io.Copy(io.Discard, r.Body) // else the server does not see the client go
		select {
		case <-c.hung:
		default:
			close(c.hung)
		}
		<-r.Context().Done()
	case f.what == "cut":
		panic(http.ErrAbortHandler)
	case f.what == "lose":
		handle(httptest.NewRecorder())
		panic(http.ErrAbortHandler)
	default:
		handle(w)
	}
}

// route finds the handler of a request and checks the request.
func (c *cloud) route(r *http.Request) (id string, handle func(http.ResponseWriter), err error) {
	path := r.URL.EscapedPath()
	if strings.HasPrefix(path, "/upload/storage/v1/b/") || path == "/session" {
		return c.routeUpload(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", nil, err
	}
	api, rest := "compute/v1", strings.TrimPrefix(path, "/compute/v1/")
	if rest == path {
		api, rest = "storage/v1", strings.TrimPrefix(path, "/storage/v1/")
	}
	if rest == path {
		return "", nil, fmt.Errorf("%s is outside of both APIs", path)
	}
	m, v, bad := discovery(c.t, api).check(r, rest, body)
	if len(bad) > 0 {
		return "", nil, fmt.Errorf("contract: %s", strings.Join(bad, "; "))
	}
	q := r.URL.Query()
	calls := map[string]func(http.ResponseWriter){
		"compute.images.get":           func(w http.ResponseWriter) { c.getImage(w, v["project"], v["image"]) },
		"compute.images.insert":        func(w http.ResponseWriter) { c.insertImage(w, v["project"], q.Get("requestId"), body) },
		"compute.images.delete":        func(w http.ResponseWriter) { c.deleteImage(w, v["project"], v["image"]) },
		"compute.images.getIamPolicy":  func(w http.ResponseWriter) { c.answer(w, c.policies[v["resource"]]) },
		"compute.images.setIamPolicy":  func(w http.ResponseWriter) { c.setPolicy(w, v["resource"], body) },
		"compute.globalOperations.get": func(w http.ResponseWriter) { c.getOperation(w, v["operation"]) },
		"storage.objects.get":          func(w http.ResponseWriter) { c.getObject(w, v["bucket"], v["object"]) },
		"storage.objects.delete":       func(w http.ResponseWriter) { c.deleteObject(w, v["object"], q.Get("ifGenerationMatch")) },
	}
	if calls[m.ID] == nil {
		return "", nil, fmt.Errorf("%s is not something this should call", m.ID)
	}
	return m.ID, func(w http.ResponseWriter) {
		c.mu.Lock()
		defer c.mu.Unlock()
		calls[m.ID](w)
	}, nil
}

func (c *cloud) fail(w http.ResponseWriter, f fault) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	fmt.Fprintf(w, `{"error":{"code":%d,"message":%q,"errors":[{"reason":%q,"message":%q}]}}`, f.status, f.message, f.reason, f.message)
}

func (c *cloud) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		c.t.Error(err)
	}
}

func (c *cloud) project(w http.ResponseWriter, name string) bool {
	if name != "my-project" {
		c.fail(w, fault{status: 404, reason: "notFound", message: "The resource 'projects/" + name + "' was not found"})
		return false
	}
	return true
}

func (c *cloud) getImage(w http.ResponseWriter, project, name string) {
	if !c.project(w, project) {
		return
	}
	i := c.images[name]
	if i == nil {
		c.fail(w, fault{status: 404, reason: "notFound", message: "The resource 'projects/" + project + "/global/images/" + name + "' was not found"})
		return
	}
	if i.Status == "PENDING" {
		if c.looks--; c.looks < 0 {
			i.Status = "READY"
		}
	}
	c.answer(w, i)
}

func (c *cloud) insertImage(w http.ResponseWriter, project, request string, body []byte) {
	if !c.project(w, project) {
		return
	}
	if op := c.ops[c.requestIDs[request]]; op != nil {
		c.answer(w, op.Operation)
		return
	}
	var raw map[string]any
	i := new(compute.Image)
	if json.Unmarshal(body, &raw) != nil || json.Unmarshal(body, i) != nil {
		c.t.Errorf("insert of %s", body)
	}
	if c.images[i.Name] != nil {
		c.fail(w, fault{status: 409, reason: "alreadyExists", message: "exists"})
		return
	}
	object, ok := strings.CutPrefix(i.RawDisk.Source, "https://storage.googleapis.com/my-bucket/")
	if !ok || !c.exists(object) {
		c.t.Errorf("the image is made of %s, which is not there", i.RawDisk.Source)
	}
	c.inserted = append(c.inserted, raw)
	i.Status, i.SelfLink = "PENDING", c.url+"/compute/v1/projects/"+project+"/global/images/"+i.Name
	c.images[i.Name] = i
	c.policies[i.Name] = &compute.Policy{Etag: "ZTE=", Version: 1, Bindings: []*compute.Binding{{Role: "roles/viewer", Members: []string{"user:old@example.com"}}}}
	op := c.operate(func() {})
	if c.opError != nil {
		op.Error, op.then = c.opError, func() { delete(c.images, i.Name) }
	}
	c.requestIDs[request] = op.Name
	c.answer(w, op.Operation)
}

func (c *cloud) operate(then func()) *operation {
	op := &operation{polls: c.polls, then: then}
	op.Name, op.Status = fmt.Sprintf("operation-%d", len(c.ops)+1), "PENDING"
	c.ops[op.Name] = op
	return op
}

func (c *cloud) getOperation(w http.ResponseWriter, name string) {
	op := c.ops[name]
	if op.polls--; op.polls < 0 && op.Status != "DONE" {
		op.Status = "DONE"
		op.then()
	}
	shown := op.Operation
	if op.Status != "DONE" {
		shown.Status, shown.Error = "RUNNING", nil
	}
	c.answer(w, shown)
}

func (c *cloud) deleteImage(w http.ResponseWriter, project, name string) {
	switch {
	case c.images[name] == nil:
		c.getImage(w, project, name)
	case c.notReady > 0:
		c.notReady--
		c.fail(w, fault{status: 400, reason: "resourceNotReady", message: "The resource 'projects/my-project/global/images/" + name + "' is not ready"})
	default:
		c.answer(w, c.operate(func() { delete(c.images, name) }).Operation)
	}
}

func (c *cloud) setPolicy(w http.ResponseWriter, name string, body []byte) {
	var r compute.GlobalSetPolicyRequest
	if err := json.Unmarshal(body, &r); err != nil {
		c.t.Error(err)
	}
	if r.Policy.Etag != c.policies[name].Etag {
		c.fail(w, fault{status: 412, reason: "conditionNotMet", message: "etag"})
		return
	}
	r.Policy.Etag = "ZTI="
	c.policies[name] = r.Policy
	c.answer(w, r.Policy)
}

func (c *cloud) describe(o *stored) map[string]any {
	sum := crc32.Checksum(o.data, crc32.MakeTable(crc32.Castagnoli))
	if c.corrupt {
		sum++
	}
	return map[string]any{
		"name": o.name, "bucket": "my-bucket", "size": fmt.Sprint(len(o.data)), "metadata": o.metadata,
		"generation": fmt.Sprint(o.generation), "crc32c": base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum)),
	}
}

func (c *cloud) getObject(w http.ResponseWriter, bucket, name string) {
	if o := c.objects[name]; o != nil {
		c.answer(w, c.describe(o))
		return
	}
	c.fail(w, fault{status: 404, reason: "notFound", message: "No such object: " + bucket + "/" + name})
}

func (c *cloud) deleteObject(w http.ResponseWriter, name, generation string) {
	o := c.objects[name]
	switch {
	case o == nil:
		c.getObject(w, "my-bucket", name)
	case generation != fmt.Sprint(o.generation):
		c.fail(w, fault{status: 412, reason: "conditionNotMet", message: "At least one of the pre-conditions you specified did not hold."})
	default:
		delete(c.objects, name)
		w.WriteHeader(http.StatusNoContent)
	}
}

// routeUpload is the part of Cloud Storage that is no plain API call.
func (c *cloud) routeUpload(r *http.Request) (string, func(http.ResponseWriter), error) {
	q := r.URL.Query()
	locked := func(f func(http.ResponseWriter)) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			c.mu.Lock()
			defer c.mu.Unlock()
			f(w)
		}
	}
	switch {
	case r.URL.Path == "/session" && r.Method == http.MethodDelete:
		return "cancel", locked(func(w http.ResponseWriter) {
			delete(c.sessions, q.Get("id"))
			w.WriteHeader(499)
		}), nil
	case r.URL.Path == "/session":
		return "chunk", func(w http.ResponseWriter) { c.chunk(w, r) }, nil
	case !strings.HasPrefix(r.URL.Path, "/upload/storage/v1/b/my-bucket/o"):
		return "begin", func(w http.ResponseWriter) {
			c.fail(w, fault{status: 404, reason: "notFound", message: "The specified bucket does not exist."})
		}, nil
	case q.Get("ifGenerationMatch") != "0" || r.Header.Get("Content-Encoding") != "":
		return "", nil, fmt.Errorf("an upload with %v that may replace another object", q)
	case q.Get("uploadType") == "resumable":
		return "begin", locked(func(w http.ResponseWriter) {
			o := c.object(r.Body)
			id := fmt.Sprint(len(c.sessions) + 1)
			c.sessions[id] = o
			w.Header().Set("Location", c.url+"/session?id="+id)
		}), nil
	}
	return "whole", locked(func(w http.ResponseWriter) {
		_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil {
			c.t.Error(err)
		}
		parts := multipart.NewReader(r.Body, params["boundary"])
		head, err := parts.NextPart()
		if err != nil {
			c.t.Error(err)
			return
		}
		o := c.object(head)
		media, err := parts.NextPart()
		if err != nil {
			c.t.Error(err)
			return
		}
		if o.data, err = io.ReadAll(media); err != nil {
			c.t.Error(err)
		}
		c.store(w, o)
	}), nil
}

func (c *cloud) object(body io.Reader) *stored {
	var o struct {
		Name, ContentType, ContentEncoding string
		Metadata                           map[string]string
	}
	if err := json.NewDecoder(body).Decode(&o); err != nil || o.ContentType != "application/gzip" || o.ContentEncoding != "" {
		c.t.Errorf("object %+v, %v", o, err)
	}
	return &stored{name: o.Name, metadata: o.Metadata}
}

func (c *cloud) store(w http.ResponseWriter, o *stored) {
	if c.objects[o.name] != nil && c.objects[o.name] != o {
		c.fail(w, fault{status: 412, reason: "conditionNotMet", message: "exists"})
		return
	}
	if c.objects[o.name] == nil {
		c.generation++
		o.generation = c.generation
	}
	c.objects[o.name] = o
	c.answer(w, c.describe(o))
}

// chunk takes the bytes of a range that it has not got yet, like the real one.
func (c *cloud) chunk(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // cut off: nothing is kept of it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.sessions[r.URL.Query().Get("id")]
	if o == nil {
		c.fail(w, fault{status: 410, message: "gone"})
		return
	}
	var first, last, total int64
	span := r.Header.Get("Content-Range")
	if n, _ := fmt.Sscanf(span, "bytes %d-%d/%d", &first, &last, &total); n < 2 {
		if n, _ := fmt.Sscanf(span, "bytes */%d", &total); n != 1 {
			c.t.Errorf("Content-Range: %q", span)
		}
		first = total
	}
	have := int64(len(o.data))
	if first > have {
		c.t.Errorf("bytes %d and on, but only %d have come", first, have)
	}
	if skip := have - first; skip < int64(len(body)) {
		o.data = append(o.data, body[skip:]...)
	}
	if total > 0 && int64(len(o.data)) == total {
		sum := crc32.Checksum(o.data, crc32.MakeTable(crc32.Castagnoli))
		if want := "crc32c=" + base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum)); r.Header.Get("X-Goog-Hash") != want {
			c.t.Errorf("X-Goog-Hash is %q, the content has %q", r.Header.Get("X-Goog-Hash"), want)
		}
		c.store(w, o)
		return
	}
	w.Header().Set("X-Http-Status-Code-Override", "308")
	w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", len(o.data)-1))
}

// empty says what is left in the cloud.
func (c *cloud) left() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(append(slices.Sorted(maps.Keys(c.images)), slices.Sorted(maps.Keys(c.objects))...), " ")
}

// sent counts requests of a kind.
func (c *cloud) sent(id string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.calls {
		if s == id {
			n++
		}
	}
	return n
}

func (c *cloud) content(name string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.objects[name]; o != nil {
		return bytes.Clone(o.data)
	}
	return nil
}
