// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Model is a service model as botocore carries it (service-2.json).
type Model struct {
	Metadata   struct{ ServiceID, Protocol string }
	Operations map[string]struct {
		HTTP  struct{ Method, RequestURI string }
		Input struct{ Shape string }
	}
	Shapes map[string]Shape
}

// Shape is a type of a model.
type Shape struct {
	Type     string
	Required []string
	Members  map[string]Member
	Member   Member
	Payload  string
	Enum     []string
	Pattern  string
	Min, Max *float64
}

// Member is a member of a structure or the element of a list.
type Member struct{ Shape, Location, LocationName, QueryName string }

// LoadModel reads a model of the tools tree, such as "ebs/2019-11-02".
func LoadModel(tree, name string) (*Model, error) {
	b, err := os.ReadFile(filepath.Join(tree, "usr/lib/python3/dist-packages/botocore/data", name, "service-2.json"))
	if err != nil {
		return nil, fmt.Errorf("the tools tree has no model %s: add python3-botocore to it: %w", name, err)
	}
	return ParseModel(b)
}

// ParseModel reads a model.
func ParseModel(b []byte) (*Model, error) {
	var m Model
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	if len(m.Operations) == 0 || len(m.Shapes) == 0 {
		return nil, fmt.Errorf("a service model without operations or shapes")
	}
	return &m, nil
}

// Match finds the operation of a REST request and the values in its path.
func (m *Model) Match(method, path string) (op string, uri map[string]string) {
	have := strings.Split(path, "/")
	for name, o := range m.Operations {
		want := strings.Split(o.HTTP.RequestURI, "/")
		if o.HTTP.Method != method || len(want) != len(have) {
			continue
		}
		values, ok := map[string]string{}, true
		for i, w := range want {
			if strings.HasPrefix(w, "{") {
				values[strings.Trim(w, "{}")] = have[i]
			} else if w != have[i] {
				ok = false
			}
		}
		// A fixed path goes before one with a value in its place.
		if ok && (op == "" || len(values) < len(uri)) {
			op, uri = name, values
		}
	}
	return op, uri
}

// Check lists what is wrong with a value for a shape. Values are as JSON
// decodes them; the query protocol has strings for all scalars.
func (m *Model) Check(at, shape string, v any) []string {
	s, ok := m.Shapes[shape]
	if !ok {
		return []string{at + ": the model has no shape " + shape}
	}
	var bad []string
	switch s.Type {
	case "structure":
		fields, ok := v.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s: %v is no structure", at, v)}
		}
		for _, r := range s.Required {
			if _, ok := fields[r]; !ok {
				bad = append(bad, at+"."+r+": is required and missing")
			}
		}
		for name, value := range fields {
			member, ok := s.Members[name]
			if !ok {
				bad = append(bad, at+"."+name+": the model does not know it")
				continue
			}
			bad = append(bad, m.Check(at+"."+name, member.Shape, value)...)
		}
	case "list":
		list, ok := v.([]any)
		if !ok {
			return []string{fmt.Sprintf("%s: %v is no list", at, v)}
		}
		bad = bounds(bad, at, s, float64(len(list)))
		for i, value := range list {
			bad = append(bad, m.Check(fmt.Sprintf("%s[%d]", at, i), s.Member.Shape, value)...)
		}
	default:
		return s.scalar(at, v)
	}
	slices.Sort(bad)
	return bad
}

func (s Shape) scalar(at string, v any) (bad []string) {
	text := fmt.Sprint(v)
	if f, ok := v.(float64); ok {
		text = strconv.FormatFloat(f, 'f', -1, 64)
	}
	switch s.Type {
	case "string":
		bad = bounds(bad, at, s, float64(utf8.RuneCountInString(text)))
		if s.Pattern != "" {
			if re, err := regexp.Compile(`^(?:` + s.Pattern + `)$`); err == nil && !re.MatchString(text) {
				bad = append(bad, fmt.Sprintf("%s: %q does not match %s", at, text, s.Pattern))
			}
		}
		if len(s.Enum) > 0 && !slices.Contains(s.Enum, text) {
			bad = append(bad, fmt.Sprintf("%s: %q is none of %v", at, text, s.Enum))
		}
	case "integer", "long", "float", "double":
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return []string{fmt.Sprintf("%s: %q is no number", at, text)}
		}
		bad = bounds(bad, at, s, n)
	case "boolean":
		if text != "true" && text != "false" {
			bad = append(bad, fmt.Sprintf("%s: %q is neither true nor false", at, text))
		}
	}
	return bad
}

func bounds(bad []string, at string, s Shape, n float64) []string {
	if s.Min != nil && n < *s.Min || s.Max != nil && n > *s.Max {
		bad = append(bad, fmt.Sprintf("%s: %v is out of bounds", at, n))
	}
	return bad
}

// Unflatten turns the form of the EC2 query protocol (A.1.B=x) into values by
// the names of the model's members
// (https://smithy.io/2.0/aws/protocols/aws-ec2-query-protocol.html).
func (m *Model) Unflatten(shape string, form map[string][]string) (map[string]any, []string) {
	root := map[string]any{}
	var bad []string
	keys := make([]string, 0, len(form))
	for k := range form {
		keys = append(keys, k)
	}
	// Elements come in the order of their numbers.
	slices.SortFunc(keys, func(a, b string) int { return slices.Compare(numbered(a), numbered(b)) })
	for _, k := range keys {
		if k == "Action" || k == "Version" {
			continue
		}
		if len(form[k]) != 1 {
			bad = append(bad, k+": is there more than once")
		}
		if why := m.put(root, shape, strings.Split(k, "."), form[k][0]); why != "" {
			bad = append(bad, k+": "+why)
		}
	}
	return root, bad
}

// numbered makes the numbers in a key sort as such.
func numbered(k string) []string {
	parts := strings.Split(k, ".")
	for i, p := range parts {
		if n, err := strconv.Atoi(p); err == nil {
			parts[i] = fmt.Sprintf("%09d", n)
		}
	}
	return parts
}

func (m *Model) put(into map[string]any, shape string, path []string, value string) string {
	for name, member := range m.Shapes[shape].Members {
		if queryName(name, member) != path[0] {
			continue
		}
		why, v := m.value(into[name], member.Shape, path[1:], value)
		into[name] = v
		return why
	}
	return "the model does not know " + path[0]
}

func (m *Model) value(old any, shape string, path []string, value string) (why string, v any) {
	s := m.Shapes[shape]
	switch s.Type {
	case "structure":
		fields, _ := old.(map[string]any)
		if fields == nil {
			fields = map[string]any{}
		}
		if len(path) == 0 {
			return "names a structure, not a value", fields
		}
		return m.put(fields, shape, path, value), fields
	case "list":
		list, _ := old.([]any)
		if len(path) == 0 {
			return "names a list, not an element", list
		}
		n, err := strconv.Atoi(path[0])
		if err != nil || n < 1 || n > len(list)+1 {
			return "element " + path[0] + " of a list does not follow the one before", list
		}
		if n == len(list)+1 {
			list = append(list, nil)
		}
		why, list[n-1] = m.value(list[n-1], s.Member.Shape, path[1:], value)
		return why, list
	}
	if len(path) > 0 {
		return "a plain value has no " + strings.Join(path, "."), value
	}
	return "", value
}

// queryName is what the EC2 query protocol calls a member: its own queryName,
// else the name on the wire with a capital.
func queryName(name string, m Member) string {
	switch {
	case m.QueryName != "":
		return m.QueryName
	case m.LocationName != "":
		r, n := utf8.DecodeRuneInString(m.LocationName)
		return string(unicode.ToUpper(r)) + m.LocationName[n:]
	}
	return name
}
