// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
)

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
