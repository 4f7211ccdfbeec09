// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
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

// left says what is in the cloud.
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
