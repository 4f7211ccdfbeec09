// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// parser walks the YAML tree by hand: a decoder into structs loses the line of
// a wrong value and the strictness of nested custom types.
type parser struct{ file, version string }

// failure travels as a panic from where it is seen to recipe.
type failure struct{ error }

func (p *parser) fail(n *yaml.Node, format string, args ...any) {
	panic(failure{fmt.Errorf("%s:%d: %s", p.file, n.Line, fmt.Sprintf(format, args...))})
}

var yamlLine = regexp.MustCompile(`line ([0-9]+)(?:, column [0-9]+)?: `)

func (p *parser) recipe(data []byte) (r *Recipe, err error) {
	defer func() {
		if f, ok := recover().(failure); ok {
			r, err = nil, f.error
		}
	}()
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		msg := strings.TrimPrefix(err.Error(), "yaml: ")
		line := "1"
		if m := yamlLine.FindStringSubmatch(msg); m != nil {
			line = m[1]
			msg = strings.Replace(msg, m[0], "", 1)
		}
		return nil, fmt.Errorf("%s:%s: not YAML: %s", p.file, line, msg)
	}
	if len(doc.Content) != 1 {
		return nil, fmt.Errorf("%s:1: the recipe is empty: it needs layers and images", p.file)
	}
	top := p.mapping(doc.Content[0], "layers", "images")
	r = &Recipe{}
	layers := p.need(doc.Content[0], top, "layers")
	p.eachKey(layers, maxLayers, func(k, v *yaml.Node) { r.Layers = append(r.Layers, p.layer(k, v)) })
	images := p.need(doc.Content[0], top, "images")
	for _, n := range p.list(images, maxLayers) {
		r.Images = append(r.Images, p.image(n))
	}
	return r, nil
}

func (p *parser) layer(k, v *yaml.Node) Layer {
	if !layerName.MatchString(k.Value) {
		p.fail(k, "%q is no layer name: use a-z, 0-9 and dashes", k.Value)
	}
	m := p.mapping(v, "packages", "without", "drop", "go", "out", "set", "files", "folders", "links")
	l := Layer{Name: k.Value, line: k.Line, Entries: map[string]Entry{}, Without: map[string]string{}}
	if n := m["packages"]; n != nil {
		for _, e := range p.list(n, maxNames) {
			s := p.text(e)
			if !packageName.MatchString(s) {
				p.fail(e, "%q is no Debian package name", s)
			}
			if slices.Contains(l.Packages, s) {
				p.fail(e, "package %s is listed twice", s)
			}
			l.Packages = append(l.Packages, s)
		}
		slices.Sort(l.Packages)
	}
	if n := m["without"]; n != nil {
		p.eachKey(n, maxNames, func(k, v *yaml.Node) {
			if !packageName.MatchString(k.Value) {
				p.fail(k, "%q is no Debian package name", k.Value)
			}
			if p.text(v) == "" {
				p.fail(v, "say why %s is left out", k.Value)
			}
			l.Without[k.Value] = v.Value
		})
	}
	if n := m["drop"]; n != nil {
		for _, e := range p.list(n, maxNames) {
			s := p.path(e)
			if _, err := path.Match(s, "x"); err != nil {
				p.fail(e, "%q is no pattern: %v", s, err)
			}
			l.Drop = append(l.Drop, s)
		}
	}
	l.Program = p.program(v, m)
	p.entries(&l, m["folders"], fs.ModeDir, 0o755)
	p.entries(&l, m["files"], 0, 0o644)
	if n := m["links"]; n != nil {
		p.eachKey(n, maxNames, func(k, v *yaml.Node) {
			p.add(&l, k, Entry{Mode: fs.ModeSymlink | 0o777, Content: p.text(v)})
			if v.Value == "" {
				p.fail(v, "link %s has no target", k.Value)
			}
		})
	}
	if len(l.Packages)+len(l.Entries) == 0 && l.Program == nil {
		p.fail(k, "layer %s is empty: give it packages, go, files, folders or links", l.Name)
	}
	return l
}

func (p *parser) program(at *yaml.Node, m map[string]*yaml.Node) *Program {
	if m["go"] == nil {
		for _, k := range []string{"out", "set"} {
			if m[k] != nil {
				p.fail(m[k], "%s belongs to go, which is missing", k)
			}
		}
		return nil
	}
	g := &Program{Import: p.text(m["go"]), Out: p.path(p.need(at, m, "out")), Set: map[string]string{}}
	if !goImport.MatchString(g.Import) {
		p.fail(m["go"], "%q is no import path below the module, like ./web", g.Import)
	}
	if n := m["set"]; n != nil {
		p.eachKey(n, maxLayers, func(k, v *yaml.Node) {
			if !goVariable.MatchString(k.Value) {
				p.fail(k, "%q is no Go variable like main.version", k.Value)
			}
			s := p.templated(v)
			if !linkerSafe.MatchString(s) {
				p.fail(v, "%q cannot be set through the linker: letters, digits and ._:/@+- only", s)
			}
			g.Set[k.Value] = s
		})
	}
	return g
}

// entries reads files or folders; both have the same keys but content.
func (p *parser) entries(l *Layer, n *yaml.Node, kind, perm fs.FileMode) {
	if n == nil {
		return
	}
	keys := []string{"mode", "uid", "gid"}
	if kind == 0 {
		keys = append(keys, "content")
	}
	p.eachKey(n, maxNames, func(k, v *yaml.Node) {
		m := p.mapping(v, keys...)
		e := Entry{Mode: kind | perm}
		if c := m["content"]; c != nil {
			e.Content = p.text(c)
			if len(e.Content) > maxContent {
				p.fail(c, "content is longer than %d bytes", maxContent)
			}
		}
		if c := m["mode"]; c != nil {
			e.Mode = kind | p.mode(c)
		}
		e.UID = p.id(m["uid"])
		e.GID = p.id(m["gid"])
		p.add(l, k, e)
	})
}

func (p *parser) add(l *Layer, k *yaml.Node, e Entry) {
	s := p.path(k)
	if _, ok := l.Entries[s]; ok {
		p.fail(k, "%s is given twice", s)
	}
	l.Entries[s] = e
}

func (p *parser) mode(n *yaml.Node) fs.FileMode {
	s := strings.TrimPrefix(strings.TrimPrefix(p.text(n), "0o"), "0")
	v, err := strconv.ParseUint(s, 8, 32)
	if err != nil || v > 0o1777 {
		p.fail(n, "%q is no mode from 0000 to 1777", n.Value)
	}
	m := fs.FileMode(v & 0o777)
	if v&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}

func (p *parser) id(n *yaml.Node) int {
	if n == nil {
		return 0
	}
	v, err := strconv.Atoi(p.text(n))
	if err != nil || v < 0 || v > 65535 {
		p.fail(n, "%q is no user or group number from 0 to 65535", n.Value)
	}
	return v
}

func (p *parser) image(n *yaml.Node) Image {
	m := p.mapping(n, "ref", "layers", "config")
	im := Image{Ref: p.templated(p.need(n, m, "ref")), line: n.Line}
	for _, e := range p.list(p.need(n, m, "layers"), maxLayers) {
		im.Layers = append(im.Layers, p.text(e))
	}
	if c := m["config"]; c != nil {
		im.Config = p.config(c)
	}
	return im
}

func (p *parser) config(n *yaml.Node) Config {
	m := p.mapping(n, "entrypoint", "cmd", "user", "env", "ports", "workdir", "labels", "stop_signal")
	c := Config{Entrypoint: p.texts(m["entrypoint"]), Cmd: p.texts(m["cmd"]), Ports: p.texts(m["ports"])}
	for i, s := range c.Ports {
		if !portSpec.MatchString(s) {
			p.fail(m["ports"].Content[i], "%q is no port like 80/tcp", s)
		}
	}
	if u := m["user"]; u != nil {
		c.User = p.text(u)
	}
	if w := m["workdir"]; w != nil {
		c.Workdir = p.path(w)
	}
	if s := m["stop_signal"]; s != nil {
		if c.StopSignal = p.text(s); !signalName.MatchString(c.StopSignal) {
			p.fail(s, "%q is no signal name like SIGTERM", c.StopSignal)
		}
	}
	if e := m["env"]; e != nil {
		p.eachKey(e, maxNames, func(k, v *yaml.Node) {
			if k.Value == "" || strings.ContainsAny(k.Value, "=\x00") {
				p.fail(k, "%q is no environment variable", k.Value)
			}
			c.Env = append(c.Env, k.Value+"="+p.text(v))
		})
		slices.Sort(c.Env)
	}
	if l := m["labels"]; l != nil {
		c.Labels = map[string]string{}
		p.eachKey(l, maxNames, func(k, v *yaml.Node) { c.Labels[k.Value] = p.templated(v) })
	}
	return c
}
