// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

var (
	secretKey = regexp.MustCompile(`(?i)(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY)`)
	// notSecret are endings of keys that speak about a secret and do not hold
	// one: PASSWORD_FILE, TOKEN_TTL.
	notSecret = regexp.MustCompile(`(?i)_(FILE|PATH|DIR|TTL|LENGTH|SIZE|TIMEOUT|SECONDS|MINUTES|HOURS|DAYS|EXPIRY|LIFETIME|HEADER|ALGORITHM)$`)
	// inURL is a password in an address: postgres://user:password@host/.
	inURL = regexp.MustCompile(`[a-z][a-z0-9+.-]*://[^/@:\s]*:[^/@\s]+@`)
	// inFlag is a password in a command line: --password=…
	inFlag = regexp.MustCompile(`(?i)^--?[a-z-]*(password|passwd|secret|token)=.`)
)

const (
	literalText = "a literal secret in a stack is the same on every box"
	literalMend = "generate it once per box: a secret with `x-holdfast: {generate: password}`, read from /run/secrets/NAME"
)

// checkLiterals refuses passwords written into the stack, by the name of the
// environment variable or the shape of the value. It sees env files and
// interpolated values too: they lie in the same folder.
func (l *loading) checkLiterals(p *types.Project) {
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s := p.Services[name]
		for _, k := range slices.Sorted(maps.Keys(s.Environment)) {
			v := s.Environment[k]
			if v == nil || !literalSecret(k, *v) {
				continue
			}
			at := l.envLine(s, name, k)
			at.Text, at.Mend = literalText, literalMend+", and "+k+"_FILE where the image knows it"
			l.probs.add(at)
		}
		for i, h := range s.PreStart {
			for _, k := range slices.Sorted(maps.Keys(h.Environment)) {
				// What it takes over from its service has been reported.
				if v := h.Environment[k]; v != nil && s.Environment[k] == nil && literalSecret(k, *v) {
					l.report([]string{"services", name, "pre_start", fmt.Sprint(i), "environment", k}, literalText, literalMend)
				}
			}
		}
		for _, c := range []struct {
			key   string
			words []string
		}{{"command", s.Command}, {"entrypoint", s.Entrypoint}} {
			if slices.ContainsFunc(c.words, func(w string) bool {
				return !strings.Contains(w, "$") && (inURL.MatchString(w) || inFlag.MatchString(w))
			}) {
				l.report([]string{"services", name, c.key}, literalText, literalMend)
			}
		}
	}
}

func literalSecret(key, value string) bool {
	if inURL.MatchString(value) {
		return true
	}
	if value == "" || strings.HasPrefix(value, "/") || !secretKey.MatchString(key) || notSecret.MatchString(key) {
		return false
	}
	switch strings.ToLower(value) {
	case "true", "false", "yes", "no", "on", "off":
		return false
	}
	return true
}

// envLine finds where a variable of a service is set: in the Compose file, or
// in one of its env files.
func (l *loading) envLine(s types.ServiceConfig, service, key string) Problem {
	path := []string{"services", service, "environment", key}
	at := l.place(path)
	if l.src.has(path...) {
		return at
	}
	for _, f := range s.EnvFiles {
		rel := strings.TrimPrefix(strings.TrimPrefix(f.Path, l.dir), "/")
		if line := l.envFileLine(rel, key); line > 0 {
			return Problem{File: rel, Line: line, Key: key}
		}
	}
	return at
}
