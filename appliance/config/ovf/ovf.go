// SPDX-License-Identifier: Apache-2.0

// Package ovf reads the OVF environment: the XML document in which a
// hypervisor hands a virtual machine the properties that were filled in when
// it was deployed (DMTF DSP0243, "OVF environment"). It gives names and
// values and judges neither.
package ovf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
)

const (
	// Namespace is that of an environment, in OVF 1.0 and 1.1.
	Namespace = "http://schemas.dmtf.org/ovf/environment/1"
	// Max bounds an environment in bytes. vCenter puts the properties of all
	// machines of a vApp into each.
	Max = 256 << 10
	// maxDepth and maxProperties bound what is in it.
	maxDepth      = 32
	maxProperties = 1000
)

// Property is one property of this machine.
type Property struct {
	// Key is the full name, "holdfast.hostname".
	Key, Value string
	// Line is where it stands, from 1.
	Line int
}

// Error says what is wrong with an environment.
type Error struct {
	Line int
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

// Parse lists the properties of an environment in their order; those of other
// machines of the same vApp are left out. An error is an *Error.
func Parse(data []byte) ([]Property, error) {
	if len(data) > Max {
		return nil, &Error{1, fmt.Sprintf("the OVF environment is larger than %d KiB", Max>>10)}
	}
	r := &reader{dec: xml.NewDecoder(bytes.NewReader(data)), seen: map[string]int{}}
	for {
		token, err := r.dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = r.take(token)
		}
		var e *Error
		if errors.As(err, &e) {
			return nil, e
		}
		if err != nil {
			return nil, r.bad("this is not XML as an OVF environment must be: %v", err)
		}
	}
	if !r.begun {
		return nil, r.bad("there is no Environment element")
	}
	return r.out, nil
}

type reader struct {
	dec   *xml.Decoder
	open  []xml.Name
	begun bool
	seen  map[string]int
	out   []Property
}

func (r *reader) bad(format string, args ...any) error {
	line, _ := r.dec.InputPos()
	return &Error{line, fmt.Sprintf(format, args...)}
}

func (r *reader) take(token xml.Token) error {
	switch t := token.(type) {
	case xml.Directive:
		// A document type can define entities; no environment has one.
		return r.bad("a document type (<!...>) is not taken")
	case xml.EndElement:
		r.open = r.open[:len(r.open)-1]
	case xml.StartElement:
		if len(r.open) == maxDepth {
			return r.bad("elements are more than %d deep", maxDepth)
		}
		if len(r.open) == 0 {
			if r.begun || t.Name.Local != "Environment" || t.Name.Space != Namespace {
				return r.bad("the element <%s> is no OVF environment", t.Name.Local)
			}
			r.begun = true
		}
		r.open = append(r.open, t.Name)
		if len(r.open) == 3 && r.open[1] == (xml.Name{Space: Namespace, Local: "PropertySection"}) && t.Name == (xml.Name{Space: Namespace, Local: "Property"}) {
			return r.property(t)
		}
	}
	return nil
}

func (r *reader) property(t xml.StartElement) error {
	line, _ := r.dec.InputPos()
	p := Property{Line: line}
	for _, a := range t.Attr {
		if a.Name.Space != "" && a.Name.Space != Namespace {
			continue
		}
		switch a.Name.Local {
		case "key":
			p.Key = a.Value
		case "value":
			p.Value = a.Value
		}
	}
	if p.Key == "" {
		return r.bad("a Property has no key")
	}
	if first := r.seen[p.Key]; first > 0 {
		return r.bad("the property %q is there twice, first on line %d", p.Key, first)
	}
	if len(r.out) == maxProperties {
		return r.bad("more than %d properties", maxProperties)
	}
	r.seen[p.Key] = line
	r.out = append(r.out, p)
	return nil
}
