// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// document is Google's description of an API, as its client library ships it
// (https://developers.google.com/discovery/v1/reference/apis).
type document struct {
	ServicePath string              `json:"servicePath"`
	Parameters  map[string]*schema  `json:"parameters"`
	Schemas     map[string]*schema  `json:"schemas"`
	Resources   map[string]resource `json:"resources"`
}

type resource struct {
	Methods map[string]*method `json:"methods"`
}

type method struct {
	ID         string             `json:"id"`
	HTTPMethod string             `json:"httpMethod"`
	Path       string             `json:"path"`
	Parameters map[string]*schema `json:"parameters"`
	Request    *schema            `json:"request"`
}

type schema struct {
	Ref        string             `json:"$ref"`
	Type       string             `json:"type"`
	Format     string             `json:"format"`
	Pattern    string             `json:"pattern"`
	Location   string             `json:"location"`
	Required   bool               `json:"required"`
	ReadOnly   bool               `json:"readOnly"`
	Enum       []string           `json:"enum"`
	Items      *schema            `json:"items"`
	Properties map[string]*schema `json:"properties"`
	Additional *schema            `json:"additionalProperties"`
}

var documents sync.Map

// discovery reads the document of an API, such as "compute/v1", out of the
// client library that the product links.
func discovery(t testing.TB, api string) *document {
	t.Helper()
	if d, ok := documents.Load(api); ok {
		return d.(*document)
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "google.golang.org/api/"+api).Output()
	if err != nil {
		t.Fatalf("find google.golang.org/api/%s: %v", api, err)
	}
	name, _, _ := strings.Cut(api, "/")
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), name+"-api.json"))
	if err != nil {
		t.Fatal(err)
	}
	d := new(document)
	if err := json.Unmarshal(b, d); err != nil {
		t.Fatal(err)
	}
	documents.Store(api, d)
	return d
}

// find is the method of a request and the parameters in its path.
func (d *document) find(r *http.Request, path string) (*method, map[string]string) {
	parts := strings.Split(path, "/")
	for _, res := range d.Resources {
		for _, m := range res.Methods {
			want := strings.Split(m.Path, "/")
			if m.HTTPMethod != r.Method || len(want) != len(parts) {
				continue
			}
			values := map[string]string{}
			for i, w := range want {
				if strings.HasPrefix(w, "{") {
					v, err := url.PathUnescape(parts[i])
					if err != nil {
						values = nil
						break
					}
					values[strings.Trim(w, "{}")] = v
				} else if w != parts[i] {
					values = nil
					break
				}
			}
			if values != nil {
				return m, values
			}
		}
	}
	return nil, nil
}

// check says in what a request is not one of the API's: method, path, every
// parameter, every field of the body with its type.
func (d *document) check(r *http.Request, path string, body []byte) (m *method, values map[string]string, bad []string) {
	m, values = d.find(r, path)
	if m == nil {
		return nil, nil, []string{fmt.Sprintf("%s %s is no method", r.Method, path)}
	}
	given := map[string][]string(r.URL.Query())
	for k, v := range values {
		given[k] = []string{v}
	}
	for k, vs := range given {
		p := m.Parameters[k]
		if p == nil {
			p = d.Parameters[k]
		}
		if p == nil || len(vs) != 1 {
			bad = append(bad, fmt.Sprintf("%s: parameter %s=%q", m.ID, k, vs))
			continue
		}
		bad = append(bad, d.text(m.ID+"?"+k, p, vs[0])...)
	}
	for k, p := range m.Parameters {
		if p.Required && given[k] == nil {
			bad = append(bad, fmt.Sprintf("%s: no %s", m.ID, k))
		}
	}
	if (m.Request == nil) != (len(body) == 0) {
		bad = append(bad, fmt.Sprintf("%s: a body of %d bytes", m.ID, len(body)))
	}
	if m.Request != nil && len(body) > 0 {
		var v any
		if err := json.Unmarshal(body, &v); err != nil {
			return m, values, append(bad, fmt.Sprintf("%s: %v", m.ID, err))
		}
		bad = append(bad, d.value(m.ID, m.Request, v)...)
	}
	return m, values, bad
}

// text checks a parameter.
func (d *document) text(at string, s *schema, v string) (bad []string) {
	if s.Pattern != "" && !regexp.MustCompile(`^(?:`+s.Pattern+`)$`).MatchString(v) {
		bad = append(bad, fmt.Sprintf("%s: %q does not match %s", at, v, s.Pattern))
	}
	if s.Enum != nil && !slices.Contains(s.Enum, v) {
		bad = append(bad, fmt.Sprintf("%s: %q is none of %v", at, v, s.Enum))
	}
	if _, err := strconv.ParseInt(v, 10, 64); err != nil && (s.Type == "integer" || s.Format == "int64") {
		bad = append(bad, fmt.Sprintf("%s: %q is no number", at, v))
	}
	if s.Type == "boolean" && v != "true" && v != "false" {
		bad = append(bad, fmt.Sprintf("%s: %q is no boolean", at, v))
	}
	return bad
}

// value checks a part of a body.
func (d *document) value(at string, s *schema, v any) (bad []string) {
	if s.Ref != "" {
		target := d.Schemas[s.Ref]
		if target == nil {
			return []string{at + ": no schema " + s.Ref}
		}
		return d.value(at, target, v)
	}
	wrong := []string{fmt.Sprintf("%s: %v is no %s %s", at, v, s.Type, s.Format)}
	switch v := v.(type) {
	case map[string]any:
		if s.Type != "object" {
			return wrong
		}
		for k, field := range v {
			p := s.Properties[k]
			if p == nil {
				p = s.Additional
			}
			switch {
			case p == nil:
				bad = append(bad, at+"."+k+": no such field")
			case p.ReadOnly:
				bad = append(bad, at+"."+k+": is only for answers")
			default:
				bad = append(bad, d.value(at+"."+k, p, field)...)
			}
		}
	case []any:
		if s.Type != "array" {
			return wrong
		}
		for i, e := range v {
			bad = append(bad, d.value(fmt.Sprintf("%s[%d]", at, i), s.Items, e)...)
		}
	case string:
		if s.Type != "string" && s.Type != "any" {
			return wrong
		}
		if _, err := base64.StdEncoding.DecodeString(v); err != nil && s.Format == "byte" {
			return wrong
		}
		return d.text(at, s, v)
	case bool:
		if s.Type != "boolean" {
			return wrong
		}
	case float64:
		if s.Type != "integer" && s.Type != "number" {
			return wrong
		}
	}
	return bad
}

// The checker itself finds what is wrong.
func TestContractChecker(t *testing.T) {
	d := discovery(t, "compute/v1")
	for _, c := range []struct{ method, path, query, body, want string }{
		{"POST", "projects/my-project/global/images", "requestId=x", `{"name":"a","sourceType":"RAW","guestOsFeatures":[{"type":"GVNIC"}],"rawDisk":{"source":"x"}}`, ""},
		{"POST", "projects/my-project/global/images", "", `{"name":"A"}`, "does not match"},
		{"POST", "projects/my-project/global/images", "", `{"name":"a","selfLink":"x"}`, "is only for answers"},
		{"POST", "projects/my-project/global/images", "", `{"name":"a","family":1}`, "family: 1 is no string"},
		{"POST", "projects/my-project/global/images", "", `{"name":"a","sort":"x"}`, "sort: no such field"},
		{"POST", "projects/my-project/global/images", "", `{"name":"a","architecture":"x86"}`, "is none of"},
		{"POST", "projects/my-project/global/images", "", `{"shieldedInstanceInitialState":{"pk":{"content":"%%"}}}`, "is no string byte"},
		{"POST", "projects/my-project/global/images", "", ``, "a body of 0 bytes"},
		{"POST", "projects/my-project/global/images", "force=x", `{}`, "parameter force"},
		{"POST", "projects/my-project/global/images", "forceCreate=x", `{}`, "is no boolean"},
		{"GET", "projects/my-project/global/picture/x", "", ``, "is no method"},
		{"GET", "projects/my-project/global/images/X_", "", ``, "does not match"},
		{"GET", "projects/my-project/global/images/x", "", `{}`, "a body of 2 bytes"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, "http://x/?"+c.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _, bad := d.check(r, c.path, []byte(c.body))
		if got := strings.Join(bad, "; "); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s %s %s: %q, want %q", c.method, c.path, c.body, got, c.want)
		}
	}
}
