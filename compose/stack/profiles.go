// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// profilesKey is the variable by which Compose itself enables profiles.
const profilesKey = "COMPOSE_PROFILES"

// enabledProfiles reads COMPOSE_PROFILES of the stack folder's .env: names
// with commas between them, or "*" for all.
func (l *loading) enabledProfiles() []string {
	var out []string
	for name := range strings.SplitSeq(l.src.list[0].env[profilesKey], ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// elsewhereVariables would have docker compose run something else out of this
// folder than what the Compose file says.
var elsewhereVariables = map[string]string{
	"COMPOSE_FILE":                  "`include` the other files",
	"COMPOSE_PATH_SEPARATOR":        dropIt,
	"COMPOSE_ENV_FILES":             "put the variables into this file",
	"COMPOSE_PROJECT_NAME":          "write the top-level `name`",
	"COMPOSE_CONVERT_WINDOWS_PATHS": dropIt,
	"DOCKER_DEFAULT_PLATFORM":       dropIt,
}

// checkComposeVariables refuses those in the .env beside the Compose file.
func (l *loading) checkComposeVariables() {
	for _, name := range slices.Sorted(maps.Keys(elsewhereVariables)) {
		if line := l.envFileLine(".env", name); line > 0 {
			l.probs.add(Problem{File: ".env", Line: line, Key: name,
				Text: "what a stack is must not depend on a variable", Mend: elsewhereVariables[name]})
		}
	}
}

// dropDisabled takes the services of profiles that are not enabled out of the
// model, before anything of them is checked or needed: a box never runs them.
// A profile that no service has is a slip of the pen.
func (l *loading) dropDisabled(dict map[string]any, enabled []string) {
	services, _ := dict["services"].(map[string]any)
	known := []string{"*"}
	l.disabled = map[string][]string{}
	for name, v := range services {
		service, _ := v.(map[string]any)
		list, _ := service["profiles"].([]any)
		var of []string
		for _, p := range list {
			of = append(of, fmt.Sprint(p))
		}
		known = append(known, of...)
		on := len(of) == 0 || slices.Contains(enabled, "*") || slices.ContainsFunc(of, func(p string) bool { return slices.Contains(enabled, p) })
		if !on {
			l.disabled[name] = of
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.disabled)) {
		delete(services, name)
	}
	for _, p := range enabled {
		if !slices.Contains(known, p) {
			l.probs.add(Problem{File: ".env", Line: l.envFileLine(".env", profilesKey), Key: profilesKey,
				Text: fmt.Sprintf("no service has the profile %q", p), Mend: "correct the name, or remove it"})
		}
	}
}

// envFileLine is the line of a variable in an env file, 0 where it has none.
func (l *loading) envFileLine(rel, key string) int {
	data, err := l.readFile(rel, maxEnv)
	if err != nil {
		return 0
	}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "export "))
		if rest, ok := strings.CutPrefix(line, key); ok && strings.HasPrefix(strings.TrimSpace(rest), "=") {
			return i + 1
		}
	}
	return 0
}
