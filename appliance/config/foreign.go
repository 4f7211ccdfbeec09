// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// foreign are the first lines of user-data for other systems.
var foreign = []struct{ prefix, what string }{
	{"#cloud-config-archive", "a cloud-config archive"},
	{"#cloud-config-jsonp", "cloud-config"},
	{"#cloud-config", "cloud-config"},
	{"#cloud-boothook", "a cloud-init boot hook"},
	{"#part-handler", "a cloud-init part handler"},
	{"#include-once", "a cloud-init include file"},
	{"#include", "a cloud-init include file"},
	{"#upstart-job", "an upstart job"},
	{"## template:", "a cloud-init template"},
	{"#!", "a script"},
	{"<powershell>", "a PowerShell script"},
	{"<script>", "a script"},
	{"<?xml", "XML"},
	{"<!doctype", "a web page"},
	{"<html", "a web page"},
	{"content-type:", "a MIME message"},
	{"mime-version:", "a MIME message"},
	{"from nobody", "a MIME message"},
}

const mendForeign = "Holdfast runs no cloud-init and no scripts; write the keys of its own configuration instead"

// notYAML finds what can't be a document before YAML is tried: too much, not
// text, or made for another system.
func notYAML(data []byte) (Problem, bool) {
	if len(data) > MaxDocument {
		return Problem{Text: "the document is larger than " + kib(MaxDocument), Mend: "shorten it"}, true
	}
	switch {
	case bytes.HasPrefix(data, gzipMagic):
		return Problem{Line: 1, Text: "this is compressed with gzip", Mend: "hand over the plain YAML; with Terraform turn off gzip"}, true
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return Problem{Line: 1, Text: "this is UTF-16", Mend: "save the file as UTF-8"}, true
	}
	if at, bad := notUTF8(data); bad {
		return Problem{Line: lineOf(data, at), Text: "this is no UTF-8 text", Mend: "save the file as UTF-8"}, true
	}
	line := 0
	for text := range strings.SplitSeq(strings.TrimPrefix(string(data), "\ufeff"), "\n") {
		line++
		text = strings.ToLower(strings.TrimSpace(text))
		if text == "" {
			continue
		}
		for _, f := range foreign {
			rest, ok := strings.CutPrefix(text, f.prefix)
			// "#includes all sites" is a comment, "#include" alone is not.
			if !ok || f.prefix[0] == '#' && f.prefix[1] != '!' && rest != "" && rest[0] >= 'a' && rest[0] <= 'z' {
				continue
			}
			p := Problem{Line: line, Text: "this is " + f.what + ", not a configuration of Holdfast", Mend: mendForeign}
			if f.prefix == "#cloud-config" {
				p.Mend += ", and remove this first line"
			}
			return p, true
		}
		break
	}
	if _, is := unbase64(data); is {
		return Problem{Line: 1, Text: "this is base64", Mend: "hand over the plain YAML; a tool that encodes by itself must get it unencoded"}, true
	}
	return Problem{}, false
}

// unbase64 decodes data that is nothing but the base64 of a document, or of a
// compressed one. A document always has a colon in it and so is never base64.
func unbase64(data []byte) ([]byte, bool) {
	var text strings.Builder
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if strings.ContainsAny(line, " \t") {
			return nil, false
		}
		text.WriteString(line)
	}
	out, err := base64.StdEncoding.DecodeString(text.String())
	if err != nil {
		out, err = base64.RawStdEncoding.DecodeString(text.String())
	}
	return out, err == nil && (bytes.Contains(out, []byte(":")) || bytes.HasPrefix(out, gzipMagic))
}

// gzipMagic begins compressed data (RFC 1952).
var gzipMagic = []byte{0x1f, 0x8b}
