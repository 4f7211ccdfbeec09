// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/agext/levenshtein"
	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// composeSchema is compose-go's own schema. compose-go's Validate stops at
// the first error and drops where it is, so the schema is run here.
var composeSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema.Schema))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.RegisterFormat(&jsonschema.Format{Name: "duration", Validate: func(any) error { return nil }})
	if err := c.AddResource("compose-spec.json", doc); err != nil {
		return nil, err
	}
	return c.Compile("compose-spec.json")
})

// attributes are the keys the schema knows, by the pattern of their parent:
// "services.*" -> image, command, …; "*" where people choose the keys.
var attributes = sync.OnceValue(func() map[string][]string {
	out := map[string][]string{}
	for _, p := range schema.AttributePaths() {
		parent, key := "", string(p)
		if i := strings.LastIndexByte(key, '.'); i >= 0 {
			parent, key = key[:i], key[i+1:]
		}
		out[parent] = append(out[parent], key)
	}
	return out
})

// checkSchema reports each unknown key and each wrong type of one Compose
// file, at its line.
func (l *loading) checkSchema(s *source) {
	sch, err := composeSchema()
	if err != nil {
		l.probs.add(Problem{File: s.rel, Text: "compose schema: " + err.Error()})
		return
	}
	// Values are checked as they will be, keys as they are.
	value, err := interpolation.Interpolate(s.raw, interpolation.Options{
		LookupValue: s.lookup, Substitute: substitute,
	})
	if err != nil {
		return // checkVariables says so, with the line
	}
	delete(value, "version") // says nothing to Compose, any value will do
	data, err := json.Marshal(value)
	if err != nil {
		l.probs.add(Problem{File: s.rel, Line: 1, Text: "a key is no text: " + err.Error(), Mend: "quote it"})
		return
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		l.probs.add(Problem{File: s.rel, Line: 1, Text: err.Error()})
		return
	}
	var ve *jsonschema.ValidationError
	if err := sch.Validate(doc); !errors.As(err, &ve) {
		return
	}
	found := map[string]Problem{}
	wanted := map[string][]string{} // alternatives of one key, as one problem
	for _, e := range leaves(ve) {
		if k, ok := e.ErrorKind.(*kind.Type); ok {
			key := strings.Join(e.InstanceLocation, ".")
			for _, t := range k.Want {
				if !slices.Contains(wanted[key], t) {
					wanted[key] = append(wanted[key], t)
				}
			}
			slices.Sort(wanted[key])
			e.ErrorKind = &kind.Type{Want: wanted[key]}
			found[key+"\x00type"] = l.schemaProblems(s, e)[0]
			continue
		}
		for _, p := range l.schemaProblems(s, e) {
			found[p.Key+"\x00"+p.Text] = p
		}
	}
	for _, k := range slices.Sorted(maps.Keys(found)) {
		l.probs.add(found[k])
	}
}

// leaves picks the errors worth telling: of alternatives the one that got
// furthest, all others.
func leaves(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	var out []*jsonschema.ValidationError
	switch e.ErrorKind.(type) {
	case *kind.OneOf, *kind.AnyOf:
		best := -1
		for _, c := range e.Causes {
			got := leaves(c)
			depth := 0
			for _, g := range got {
				depth = max(depth, specific(g))
			}
			switch {
			case depth > best:
				best, out = depth, got
			case depth == best:
				out = append(out, got...)
			}
		}
	default:
		for _, c := range e.Causes {
			out = append(out, leaves(c)...)
		}
	}
	return out
}

func specific(e *jsonschema.ValidationError) int {
	switch e.ErrorKind.(type) {
	case *kind.AdditionalProperties, *kind.Required:
		return len(e.InstanceLocation) + 1
	}
	return len(e.InstanceLocation)
}

func (l *loading) schemaProblems(s *source, e *jsonschema.ValidationError) []Problem {
	at := e.InstanceLocation
	tell := func(path []string, text, mend string) Problem {
		_, line := locate(s.node, path)
		return Problem{File: s.rel, Line: line, Key: strings.Join(path, "."), Text: text, Mend: mend}
	}
	var out []Problem
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			out = append(out, tell(slices.Concat(at, []string{name}), "unknown key", didYouMean(at, name)))
		}
	case *kind.FalseSchema:
		// What no part of the service's schema evaluated: unknown keys, and
		// known ones that are wrong, which have an error of their own.
		if len(at) == 0 {
			break
		}
		parent, name := at[:len(at)-1], at[len(at)-1]
		if !slices.Contains(attributes()[pattern(parent)], name) {
			out = append(out, tell(at, "unknown key", didYouMean(parent, name)))
		}
	case *kind.Required:
		for _, name := range k.Missing {
			out = append(out, tell(at, fmt.Sprintf("the key %q is missing", name), "add it"))
		}
	case *kind.Type:
		out = append(out, tell(at, "this must be "+article(k.Want), "see the Compose file reference for this key"))
	default:
		text := e.ErrorKind.LocalizedString(message.NewPrinter(language.English))
		out = append(out, tell(at, text, "see the Compose file reference for this key"))
	}
	return out
}

func article(types []string) string {
	names := map[string]string{"object": "a mapping", "array": "a list", "string": "a text", "integer": "a whole number",
		"number": "a number", "boolean": "true or false", "null": "empty"}
	var out []string
	for _, t := range types {
		out = append(out, names[t])
	}
	return strings.Join(out, " or ")
}

// pattern is the schema's pattern of a key path: names people choose become
// "*", list indexes "[]".
func pattern(path []string) string {
	out := make([]string, 0, len(path))
	for _, part := range path {
		here := attributes()[strings.Join(out, ".")]
		switch {
		case slices.Contains(here, part):
		case !slices.Contains(here, "*") && len(out) > 0 && part != "" && strings.Trim(part, "0123456789") == "":
			part = "[]"
		default:
			part = "*"
		}
		out = append(out, part)
	}
	return strings.Join(out, ".")
}

func didYouMean(parent []string, name string) string {
	best, distance := "", 3
	for _, k := range attributes()[pattern(parent)] {
		if d := levenshtein.Distance(name, k, nil); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return "remove it, or write it as x-" + name + " if another tool needs it"
	}
	return "did you mean " + best + "?"
}
