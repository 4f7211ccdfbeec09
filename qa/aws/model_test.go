// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// tiny is a model with one operation for each protocol.
const tiny = `{
"operations": {
  "Make": {"http": {"method": "POST", "requestUri": "/"}, "input": {"shape": "MakeRequest"}},
  "Put": {"http": {"method": "PUT", "requestUri": "/things/{id}/parts/{n}"}, "input": {"shape": "PutRequest"}},
  "Done": {"http": {"method": "PUT", "requestUri": "/things/all/parts/{n}"}, "input": {"shape": "PutRequest"}}
},
"shapes": {
  "MakeRequest": {"type": "structure", "required": ["Name"], "members": {
    "Name": {"shape": "Name", "locationName": "name"}, "Parts": {"shape": "Parts", "locationName": "Part"}, "On": {"shape": "Bool", "queryName": "Enabled"}}},
  "Parts": {"type": "list", "max": 2, "member": {"shape": "Part"}},
  "Part": {"type": "structure", "members": {"Size": {"shape": "Size"}, "Kind": {"shape": "Kind"}}},
  "PutRequest": {"type": "structure", "required": ["Id", "N", "Sum"], "payload": "Data", "members": {
    "Id": {"shape": "Name", "location": "uri", "locationName": "id"}, "N": {"shape": "Size", "location": "uri", "locationName": "n"},
    "Sum": {"shape": "Name", "location": "header", "locationName": "x-amz-Sum"}, "All": {"shape": "Bool", "location": "querystring", "locationName": "all"},
    "Data": {"shape": "Blob"}}},
  "Name": {"type": "string", "min": 2, "max": 5, "pattern": "[a-z]+"}, "Kind": {"type": "string", "enum": ["a", "b"]},
  "Size": {"type": "integer", "min": 1, "max": 9}, "Bool": {"type": "boolean"}, "Blob": {"type": "blob"}
}}`

func tinyModel(t testing.TB) *Model {
	t.Helper()
	m, err := ParseModel([]byte(tiny))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestUnflatten(t *testing.T) {
	m := tinyModel(t)
	form := url.Values{"Action": {"Make"}, "Name": {"abc"}, "Enabled": {"true"}, "Part.1.Size": {"3"}, "Part.1.Kind": {"a"}, "Part.2.Size": {"4"}}
	got, bad := m.Unflatten("MakeRequest", form)
	want := map[string]any{"Name": "abc", "On": "true", "Parts": []any{map[string]any{"Size": "3", "Kind": "a"}, map[string]any{"Size": "4"}}}
	if !reflect.DeepEqual(got, want) || len(bad) > 0 || len(m.Check("Make", "MakeRequest", got)) > 0 {
		t.Errorf("%v, %v", got, bad)
	}
	if dig(got, "Parts", 1, "Size") != "4" || dig(got, "Parts", 2, "Size") != nil || dig(got, "Name", "x") != nil {
		t.Error("dig does not find what is there")
	}
	for form, want := range map[string]string{
		"name=abc": "does not know name", "Part.2.Size=1": "does not follow", "Part=1": "names a list", "Part.1=1": "names a structure",
		"Part.1.Size.x=1": "plain value has no x", "Part.x.Size=1": "does not follow", "Part.1.Colour=red": "does not know Colour", "Name=abc&Name=abd": "more than once",
	} {
		f, _ := url.ParseQuery(form)
		if _, bad := m.Unflatten("MakeRequest", f); len(bad) != 1 || !strings.Contains(bad[0], want) {
			t.Errorf("%s: %v, want %q", form, bad, want)
		}
	}
}

func TestCheck(t *testing.T) {
	m := tinyModel(t)
	for form, want := range map[string]string{
		"": "Make.Name: is required", "Name=a": "out of bounds", "Name=abcdef": "out of bounds", "Name=ABC": "does not match", "Name=abc&Enabled=1": "neither true nor false",
		"Name=abc&Part.1.Size=0": "out of bounds", "Name=abc&Part.1.Size=x": "no number", "Name=abc&Part.1.Kind=c": "none of",
		"Name=abc&Part.1.Size=1&Part.2.Size=1&Part.3.Size=1": "out of bounds",
	} {
		f, _ := url.ParseQuery(form)
		params, bad := m.Unflatten("MakeRequest", f)
		if bad = append(bad, m.Check("Make", "MakeRequest", params)...); len(bad) != 1 || !strings.Contains(bad[0], want) {
			t.Errorf("%s: %v, want %q", form, bad, want)
		}
	}
}

const signature = "AWS4-HMAC-SHA256 Credential=AKID/20260102/eu-central-1/ebs/aws4_request, SignedHeaders=host;x-amz-date;x-amz-sum, Signature=" +
	"0000000000000000000000000000000000000000000000000000000000000000"

func TestReadREST(t *testing.T) {
	m := tinyModel(t)
	request := func(path string, header ...string) *Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://x"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", signature)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return Read(m, m, r, []byte("data"))
	}
	q := request("/things/abc/parts/7?all=true", "X-Amz-Sum", "sum", "X-Amz-Date", "now")
	if want := map[string]any{"Id": "abc", "N": "7", "Sum": "sum", "All": "true"}; len(q.Bad) > 0 || q.Op != "Put" || q.Region != "eu-central-1" || !reflect.DeepEqual(q.Params, want) {
		t.Errorf("%+v", q)
	}
	if q := request("/things/all/parts/7", "X-Amz-Sum", "sum"); q.Op != "Done" {
		t.Errorf("a fixed path is taken for %s", q.Op)
	}
	for _, c := range []struct {
		q    *Request
		want string
	}{
		{request("/things/abc/parts/7"), "Put.Sum: is required"},
		{request("/things/abc/parts/70", "X-Amz-Sum", "sum"), "out of bounds"},
		{request("/things/abc/parts/7?some=1", "X-Amz-Sum", "sum"), "does not know the query some"},
		{request("/things/abc/parts/7", "X-Amz-Sum", "sum", "X-Amz-Other", "1"), "does not know the header X-Amz-Other"},
		{request("/thing/abc", "X-Amz-Sum", "sum"), "no operation PUT /thing/abc"},
		{request("/things/abc/parts/7", "X-Amz-Sum", "sum", "Authorization", "Basic x"), "it is not signed"},
		{request("/things/abc/parts/7", "X-Amz-Sum", "sum", "Authorization", strings.Replace(signature, ";x-amz-sum", "", 1)), "the header X-Amz-Sum is not signed"},
	} {
		if len(c.q.Bad) == 0 || !strings.Contains(strings.Join(c.q.Bad, "\n"), c.want) {
			t.Errorf("%v, want %q", c.q.Bad, c.want)
		}
	}
}

func FuzzUnflatten(f *testing.F) {
	f.Add("Name=abc&Part.1.Size=3")
	f.Add("Part.1.Size=3&Part.1=x&Part.1.Size.2=4&Part..=&.=")
	m := tinyModel(f)
	f.Fuzz(func(t *testing.T, s string) {
		form, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		params, _ := m.Unflatten("MakeRequest", form)
		m.Check("Make", "MakeRequest", params)
	})
}
