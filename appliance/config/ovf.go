// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/holdfast/holdfast/appliance/config/ovf"
)

const (
	ovfWhere       = "OVF environment"
	guestinfoWhere = "guestinfo.holdfast.config"
	// class goes before the keys of our properties.
	class    = "holdfast."
	isoPlace = "/run/holdfast/ovf-iso"
)

// ovfKeys are the properties, and the key of the document each stands for.
var ovfKeys = []struct{ property, key string }{
	{"hostname", "hostname"}, {"address", "network.addresses"}, {"gateway", "network.gateways"},
	{"dns", "dns.servers"}, {"ntp", "ntp"}, {"proxy", "proxy.http"}, {"proxy", "proxy.https"},
	{"ssh_keys", "admin.ssh_keys"},
}

// ovfLayers reads an environment: the property `config` below, the single ones
// on top of it. Properties of other classes are somebody else's.
func ovfLayers(data []byte) ([]layer, []Problem) {
	properties, err := ovf.Parse(data)
	if err != nil {
		p := Problem{File: ovfWhere, Text: err.Error(), Mend: "deploy the OVA again, or correct what makes the environment"}
		var at *ovf.Error
		if errors.As(err, &at) {
			p.Line, p.Text = at.Line, at.Text
		}
		return nil, []Problem{p}
	}
	known := []string{"config"}
	for _, k := range ovfKeys {
		known = append(known, k.property)
	}
	var problems []Problem
	var whole map[string]any
	given := map[string]ovf.Property{}
	for _, prop := range properties {
		name, ours := strings.CutPrefix(prop.Key, class)
		switch {
		case !ours || slices.Contains(known, name) && strings.TrimSpace(prop.Value) == "":
		case name == "config":
			var more []Problem
			whole, more = parse("OVF property "+prop.Key, plainOrBase64([]byte(prop.Value)))
			problems = append(problems, more...)
		case slices.Contains(known, name):
			given[name] = prop
		default:
			problems = append(problems, Problem{File: ovfWhere, Line: prop.Line, Key: class + shorten(name), Text: "the property is not known",
				Mend: "known here: " + strings.Join(slices.Compact(known), ", ")})
		}
	}
	single, more := readProperties(given)
	if problems = append(problems, more...); len(problems) > 0 {
		return nil, sorted(problems)
	}
	return []layer{{FromOVF, whole}, {FromOVF, single}}, nil
}

// readProperties holds the single properties against the same schema as a
// document, by making the tree of the document they stand for.
func readProperties(given map[string]ovf.Property) (map[string]any, []Problem) {
	top := mappingNode(1)
	for _, k := range ovfKeys {
		prop, ok := given[k.property]
		if !ok {
			continue
		}
		var value *yaml.Node
		switch text := strings.TrimSpace(prop.Value); k.property {
		case "hostname", "proxy":
			value = textNode(text, prop.Line)
		case "ssh_keys":
			value = listNode(splitKeys(text), prop.Line)
		default:
			value = listNode(splitCommas(text), prop.Line)
		}
		outer, inner, nested := strings.Cut(k.key, ".")
		if !nested {
			put(top, outer, value)
			continue
		}
		m := get(top, outer)
		if m == nil {
			m = mappingNode(prop.Line)
			put(top, outer, m)
		}
		put(m, inner, value)
	}
	p := &parser{file: ovfWhere}
	values, problems := p.read(top)
	for i := range problems {
		problems[i].Key = propertyOf(problems[i].Key)
	}
	return values, slices.Compact(problems)
}

// propertyOf names the property behind a key of the document.
func propertyOf(key string) string {
	for _, k := range ovfKeys {
		if key == k.key || strings.HasPrefix(key, k.key+".") {
			return class + k.property
		}
	}
	return key
}

func textNode(v string, line int) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v, Line: line}
}

func listNode(items []string, line int) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: line}
	for _, v := range items {
		n.Content = append(n.Content, textNode(v, line))
	}
	return n
}

func mappingNode(line int) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: line}
}

func put(m *yaml.Node, key string, value *yaml.Node) {
	m.Content = append(m.Content, textNode(key, value.Line), value)
}

func get(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func splitCommas(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}

// splitKeys splits at line ends, and at commas before which a key ends: a
// comment may hold one.
func splitKeys(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		fresh := true
		for part := range strings.SplitSeq(line, ",") {
			trimmed := strings.TrimSpace(part)
			begins := slices.ContainsFunc(sshTypes, func(t string) bool { return strings.HasPrefix(trimmed, t+" ") })
			switch {
			case fresh || begins:
				out = append(out, trimmed)
			case trimmed != "":
				out[len(out)-1] += "," + part
			}
			fresh = false
		}
	}
	return slices.DeleteFunc(out, func(s string) bool { return strings.TrimSpace(s) == "" })
}

// plainOrBase64 decodes where the whole text is base64: property values and
// guestinfo are lines, a document has several.
func plainOrBase64(data []byte) []byte {
	if out, is := unbase64(data); is {
		return out
	}
	return data
}

func guestinfoLayers(data []byte) ([]layer, []Problem) {
	values, problems := parse(guestinfoWhere, plainOrBase64(data))
	return []layer{{FromOVF, values}}, problems
}

// keyPairLayers is the public key of the EC2 key pair as a document.
func keyPairLayers(data []byte) ([]layer, []Problem) {
	p := &parser{file: "EC2 key pair"}
	top, admin := mappingNode(1), mappingNode(1)
	put(admin, "ssh_keys", listNode(splitKeys(string(data)), 1))
	put(top, "admin", admin)
	values, problems := p.read(top)
	return []layer{{FromEC2Key, values}}, problems
}

// readOVF asks VMware for the environment, and looks for an ISO where it has
// none: which of the two is there is up to the OVA's transport.
func (e Env) readOVF(ctx context.Context) reading {
	r := e.guestinfo(ctx, "guestinfo.ovfEnv")
	if r.state == Applied {
		r.where = ovfWhere + " (guestinfo.ovfEnv)"
		return r
	}
	if iso := e.readISO(ctx); iso.state == Applied {
		return iso
	}
	return r
}

func (e Env) readGuestinfo(ctx context.Context) reading { return e.guestinfo(ctx, guestinfoWhere) }

func (e Env) guestinfo(ctx context.Context, name string) reading {
	out, err := e.run(ctx, "vmware-rpctool", "info-get "+name)
	switch {
	case err != nil && (strings.Contains(err.Error(), "No value found") || bytes.Contains(out, []byte("No value found"))):
		return nothing("")
	case err != nil:
		return unreachable(err)
	}
	return document(out)
}

// readISO looks for ovf-env.xml on each CD drive.
func (e Env) readISO(ctx context.Context) reading {
	note := ""
	for i := range 4 {
		dev := fmt.Sprintf("/dev/sr%d", i)
		if _, err := os.Stat(e.path(dev)); err != nil {
			continue
		}
		data, err := e.fromISO(ctx, dev)
		if err != nil && !strings.Contains(strings.ToLower(err.Error()), "no medium") {
			note = join(note, strings.Join(strings.Fields(err.Error()), " "))
		}
		if r := document(data); r.state == Applied {
			r.where = ovfWhere + " (ISO in " + dev + ")"
			return r
		}
	}
	return nothing(note)
}

// fromISO gives nil where the disc holds no environment.
func (e Env) fromISO(ctx context.Context, dev string) (data []byte, err error) {
	place := e.path(isoPlace)
	if err := os.MkdirAll(place, 0o700); err != nil {
		return nil, err
	}
	defer os.Remove(place)
	if _, err := e.run(ctx, "mount", "-t", "iso9660", "-o", "ro,nodev,nosuid,noexec", dev, isoPlace); err != nil {
		return nil, err
	}
	defer func() {
		// Also when time has run out: the disc would stay locked in.
		if _, e := e.run(context.WithoutCancel(ctx), "umount", isoPlace); e != nil {
			err = errors.Join(err, e)
		}
	}()
	// A disc may hold links; none leads out of it this way.
	root, err := os.OpenRoot(place)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(1000)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	at := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, "ovf-env.xml") })
	if at < 0 {
		return nil, nil
	}
	// Opening a pipe would wait for ever.
	switch i, err := root.Stat(names[at]); {
	case err != nil:
		return nil, fmt.Errorf("disc in %s: %w", dev, err)
	case !i.Mode().IsRegular():
		return nil, fmt.Errorf("%s on the disc in %s is no file", names[at], dev)
	}
	f, err := root.Open(names[at])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, ovf.Max+1))
}
