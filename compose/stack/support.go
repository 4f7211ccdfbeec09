// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/schema"
)

//go:generate go test -run TestSupportTable -update .

// ComposeVersion is the docker compose that this package's tables are held
// against.
const ComposeVersion = "2.40.3"

// Newer are the keys of the specification that docker compose ComposeVersion
// does not know and refuses, each with all below it.
var Newer = []string{
	"jobs", "services.*.build.no_cache_filter", "services.*.networks.*.use_service_name_alias",
	"services.*.pre_start", "services.*.umask",
}

// differently are honoured keys that mean more, or something else, than what
// docker compose makes of them.
var differently = map[string]string{
	"version":                                         "says nothing, to Compose neither",
	"configs.*.environment":                           "from the stack folder's `.env`; the file is mounted read-only",
	"configs.*.content":                               "a read-only mount; docker compose copies it into the container's layer",
	"networks.*.ipam.options":                         "docker compose drops it",
	"services.*.attach":                               "a box has no terminal to attach to",
	"services.*.blkio_config":                         "weight as far as the kernel's scheduler has it; budgets set it by class",
	"services.*.configs.[].gid":                       "docker compose ignores it for files",
	"services.*.configs.[].mode":                      "docker compose ignores it for files",
	"services.*.configs.[].uid":                       "docker compose ignores it for files",
	"services.*.cpu_shares":                           "where the stack does not write it, the service's class sets it",
	"services.*.cpus":                                 "a size of the stack (`x-holdfast.sizes`) may set it",
	"services.*.depends_on":                           "also when a service is healed, not only at the first start",
	"services.*.deploy.resources.limits.cpus":         "a size of the stack may set it",
	"services.*.deploy.resources.limits.memory":       "a size of the stack may set it",
	"services.*.deploy.resources.limits.pids":         "a size of the stack may set it",
	"services.*.deploy.resources.reservations.cpus":   "guaranteed, and the shares of a contended processor; docker compose drops it",
	"services.*.deploy.resources.reservations.memory": "guaranteed: what does not fit the machine is refused",
	"services.*.deploy.restart_policy.delay":          "docker compose drops it",
	"services.*.deploy.restart_policy.max_attempts":   "counted by the supervisor",
	"services.*.deploy.restart_policy.window":         "docker compose drops it",
	"services.*.deploy.update_config.order":           "docker compose drops it; start-first only where two containers can be at once",
	"services.*.env_file":                             "in the stack folder; the host's environment is not read",
	"services.*.environment":                          "the host's environment is not read; a literal secret is refused",
	"services.*.expose":                               "a port without a protocol is tcp's",
	"services.*.healthcheck":                          "an unhealthy service is started again",
	"services.*.image":                                "pinned: a box runs NAME@DIGEST",
	"services.*.logging":                              "json-file and local are capped (10 MB, 3 files) where the stack names no cap",
	"services.*.mem_limit":                            "a size of the stack may set it",
	"services.*.mem_reservation":                      "guaranteed: what does not fit the machine is refused",
	"services.*.oom_score_adj":                        "where the stack does not write it, the service's class sets it",
	"services.*.pids_limit":                           "a size of the stack may set it",
	"services.*.ports.[].app_protocol":                "says nothing to an engine",
	"services.*.ports.[].host_ip":                     "every address, or a loopback one: no box has another that is known at bake time",
	"services.*.ports.[].mode":                        "host and ingress are the same on one node",
	"services.*.ports.[].name":                        "says nothing to an engine",
	"services.*.ports.[].published":                   "one port, or as many as there are targets",
	"services.*.post_start":                           "after each start, also when a service is healed; one that fails fails the start",
	"services.*.pre_start":                            "before the first start of each new container; keys as a service's own",
	"services.*.pre_stop":                             "before each stop that the supervisor asks for",
	"services.*.profiles":                             "enabled by `COMPOSE_PROFILES` in the stack folder's `.env`; a service of none is left out",
	"services.*.restart":                              "by the supervisor, in order and with growing pauses; the engine's own policy is `no`; always where the stack says nothing",
	"services.*.secrets.[].gid":                       "docker compose ignores it for files",
	"services.*.secrets.[].mode":                      "docker compose ignores it for files",
	"services.*.secrets.[].uid":                       "docker compose ignores it for files",
	"services.*.security_opt":                         "no-new-privileges is added unless it is written; a seccomp profile lies in the stack folder; systempaths=unconfined needs a reason (`x-holdfast.allow`)",
	"services.*.volumes.[].source":                    "bind: a read-only file of the stack folder, or a path of the box with a reason (`x-holdfast.allow`)",
	"services.*.volumes_from":                         "services of the stack; `:ro` counts, docker compose drops it",
	"volumes.*.driver_opts":                           "only those of a volume in memory: type and device tmpfs, and o",
	"include":                                         "files of the stack folder, by literal path; `env_file` and `project_directory` are refused",
	"services.*.extends":                              "files of the stack folder, by literal path",
}

// elsewhere are keys that are refused before the tables are asked.
var elsewhere = map[string]rule{
	"include.[].env_file":          {text: "what a stack holds must not depend on where its variables are", mend: "use `path` only, and the folder's `.env`"},
	"include.[].project_directory": {text: "an included file's folder is what its paths are relative to", mend: "use `path` only"},
	"configs.*.external.name":      {text: "nothing outside the stack makes configs on the box", mend: "use `file`"},
	"networks.*.external.name":     {text: "nothing outside the stack makes networks on the box", mend: "use `name`"},
	"secrets.*.external.name":      {text: "nothing outside the stack makes secrets on the box", mend: "use `x-holdfast: {generate: password}`"},
	"volumes.*.external.name":      {text: "nothing outside the stack makes volumes on the box", mend: "use `name`"},
}

// Support says what becomes of one key.
type Support struct {
	// Key is the pattern: "*" for a name people choose, "[]" for an item.
	Key string
	// State is "yes", "differently", "some values", "with a reason" or "no".
	State string
	// Why says how, which values, or why not; Instead what to do.
	Why, Instead string
	// Below is how many keys the row covers beside its own.
	Below int
	// Newer is true where docker compose ComposeVersion does not know it.
	Newer bool
}

// SupportTable is every key of the Compose schema, sorted. Keys below one that
// is refused as a whole, and below pre_start, whose keys are a service's, are
// counted in its row.
func SupportTable() []Support {
	var all []string
	for _, p := range schema.AttributePaths() {
		all = append(all, string(p))
	}
	slices.Sort(all)
	var out []Support
	for _, key := range all {
		if n := len(out); n > 0 && strings.HasPrefix(key, out[n-1].Key+".") && out[n-1].Below >= 0 && covers(out[n-1]) {
			out[n-1].Below++
			continue
		}
		s, ok := support(key)
		if !ok || strings.HasSuffix(key, ".*") {
			continue // a step on the way, or a name that people choose
		}
		out = append(out, s)
	}
	return out
}

func covers(s Support) bool {
	return s.State == "no" || s.State == "with a reason" || s.Key == "services.*.pre_start"
}

// support decides one key as lintKey does.
func support(key string) (Support, bool) {
	s := Support{Key: key, State: "yes", Newer: slices.ContainsFunc(Newer, func(n string) bool {
		return key == n || strings.HasPrefix(key, n+".")
	})}
	if why, ok := differently[key]; ok {
		s.State, s.Why = "differently", why
	}
	r, ok := rules[key]
	if e, refused := elsewhere[key]; refused {
		r, ok = e, true
	}
	if ok && key != "include" {
		s.State, s.Why, s.Instead = "no", r.text, r.mend
		if len(r.ok) > 0 {
			s.State = "some values"
			if !strings.HasPrefix(r.text, "only ") {
				s.Why = "only " + strings.Join(r.ok, ", ") + ": " + r.text
			}
		}
		if r.allow != "" {
			s.State = "with a reason"
			s.Instead += fmt.Sprintf("; or say why: `x-holdfast.allow.%s`", r.allow)
		}
		return s, true
	}
	if s.State == "yes" && leadsOn(key) && !slices.Contains(honoured, key) {
		return s, false
	}
	return s, true
}

// Markdown is the table as a page shows it.
func Markdown(table []Support) string {
	var b strings.Builder
	count := map[string]int{}
	for _, s := range table {
		count[s.State] += 1 + s.Below
	}
	b.WriteString("<!-- Made by go generate ./compose/stack; do not edit. -->\n\n")
	for i, state := range slices.Sorted(maps.Keys(count)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s: %d", state, count[state])
	}
	fmt.Fprintf(&b, " keys. † docker compose %s does not know it.\n\n", ComposeVersion)
	b.WriteString("| key | honoured | how, or why not | instead |\n|---|---|---|---|\n")
	cell := strings.NewReplacer("|", "\\|", "\n", " ")
	for _, s := range table {
		key := "`" + s.Key + "`"
		if s.Below > 0 {
			key += fmt.Sprintf(" and %d below it", s.Below)
		}
		if s.Newer {
			key += " †"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", key, s.State, cell.Replace(s.Why), cell.Replace(s.Instead))
	}
	return b.String()
}
