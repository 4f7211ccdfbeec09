// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"
	"maps"
	"slices"
)

const (
	// extension is the key of Holdfast's own settings.
	extension = "x-holdfast"
	// minSecret keeps a generated password beyond guessing (95 bits of
	// [A-Za-z0-9] at 16), maxSecret below what services take.
	minSecret, maxSecret, defaultSecret = 16, 128, 32
)

// generated reads x-holdfast of each secret.
func (l *loading) generated(dict map[string]any) []GeneratedSecret {
	var out []GeneratedSecret
	secrets, _ := dict["secrets"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		secret, _ := secrets[name].(map[string]any)
		key := []string{"secrets", name}
		x, ok := secret[extension]
		if !ok {
			if secret["file"] == nil && secret["external"] == nil && secret["environment"] == nil {
				l.report(key, "the secret has no source", "add `x-holdfast: {generate: password}`, or `file`")
			}
			continue
		}
		key = append(key, extension)
		if secret["file"] != nil || secret["environment"] != nil || secret["external"] != nil {
			l.report(key, "a generated secret has no other source", "remove file, environment and external")
			continue
		}
		m, ok := x.(map[string]any)
		if !ok {
			l.report(key, "this must be a mapping", "write `x-holdfast: {generate: password, length: 32}`")
			continue
		}
		g := GeneratedSecret{Name: name, Kind: "password", Length: defaultSecret}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			at := append(slices.Clone(key), k)
			switch k {
			case "generate":
				if m[k] != "password" {
					l.report(at, fmt.Sprintf("%v is no kind of secret", m[k]), "write `generate: password`")
				}
			case "length":
				n, ok := m[k].(int)
				if !ok || n < minSecret || n > maxSecret {
					l.report(at, fmt.Sprintf("%v is no length", m[k]),
						fmt.Sprintf("write a whole number from %d to %d", minSecret, maxSecret))
					continue
				}
				g.Length = n
			default:
				l.report(at, "unknown key", "known are generate and length")
			}
		}
		if m["generate"] == nil {
			l.report(key, "the key \"generate\" is missing", "write `x-holdfast: {generate: password}`")
		}
		out = append(out, g)
	}
	return out
}
