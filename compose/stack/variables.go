// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"
)

var plainVariable = regexp.MustCompile(`^\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))`)

// checkVariables refuses variables without value: Compose makes them empty
// with a warning, and on the box nobody would see it.
func (l *loading) checkVariables(s *source) {
	lookup := func(name string) (string, bool) {
		if name == consts.ComposeProjectName {
			return "stack", true
		}
		return s.lookup(name)
	}
	scalars(s.node, nil, func(path []string, n *yaml.Node) {
		if !strings.Contains(n.Value, "$") {
			return
		}
		var unset []string
		note := func(m template.Mapping) template.ReplacementFunc {
			return func(sub string, _ template.Mapping, cfg *template.Config) (string, error) {
				if g := plainVariable.FindStringSubmatch(sub); g != nil {
					if name := g[1] + g[2]; !known(lookup, name) && !slices.Contains(unset, name) {
						unset = append(unset, name)
					}
				}
				return template.DefaultReplacementFunc(sub, m, cfg)
			}
		}
		_, err := template.SubstituteWithOptions(n.Value, lookup, template.WithoutLogging,
			template.WithReplacementFunction(note(lookup)))
		at := Problem{File: s.rel, Line: n.Line, Key: strings.Join(path, ".")}
		for _, name := range unset {
			at.Text = "the variable " + name + " is not set; the host's environment is not read"
			at.Mend = "set " + name + " in the stack folder's .env, or write ${" + name + ":-default}, or $$ for a plain $"
			l.probs.add(at)
		}
		if err == nil {
			return
		}
		at.Text, at.Mend = strings.Join(strings.Fields(err.Error()), " "), "correct the ${…}, or write $$ for a plain $"
		var missing *template.MissingRequiredError
		if errors.As(err, &missing) {
			at.Mend = "set " + missing.Variable + " in the stack folder's .env; the host's environment is not read"
		}
		l.probs.add(at)
	})
}

func known(lookup template.Mapping, name string) bool {
	_, ok := lookup(name)
	return ok
}
