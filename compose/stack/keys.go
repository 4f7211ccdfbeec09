// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// honoured are the key patterns a box honours, each with all below it unless
// a rule says otherwise. A key in neither table is refused: what a later
// version of Compose brings must not be ignored in silence.
var honoured = []string{
	"name", "version",
	"services.*.annotations", "services.*.attach", "services.*.blkio_config", "services.*.cap_add", "services.*.cap_drop",
	"services.*.cgroup", "services.*.command", "services.*.configs", "services.*.container_name",
	"services.*.cpu_period", "services.*.cpu_quota", "services.*.cpu_shares", "services.*.cpus", "services.*.cpuset",
	"services.*.depends_on",
	"services.*.deploy.mode", "services.*.deploy.replicas", "services.*.deploy.restart_policy",
	"services.*.deploy.resources.limits.cpus", "services.*.deploy.resources.limits.memory",
	"services.*.deploy.resources.limits.pids",
	"services.*.deploy.resources.reservations.cpus", "services.*.deploy.resources.reservations.memory",
	"services.*.deploy.update_config.order",
	"services.*.devices", "services.*.device_cgroup_rules",
	"services.*.dns", "services.*.dns_opt", "services.*.dns_search", "services.*.domainname",
	"services.*.entrypoint", "services.*.env_file", "services.*.environment", "services.*.expose",
	"services.*.extends", "services.*.extra_hosts", "services.*.group_add", "services.*.healthcheck",
	"services.*.hostname", "services.*.image", "services.*.init", "services.*.ipc", "services.*.isolation",
	"services.*.label_file", "services.*.labels", "services.*.links", "services.*.logging",
	"services.*.mac_address", "services.*.mem_limit", "services.*.mem_reservation", "services.*.memswap_limit",
	"services.*.network_mode", "services.*.networks", "services.*.oom_score_adj", "services.*.pid",
	"services.*.pids_limit", "services.*.platform", "services.*.ports", "services.*.post_start", "services.*.pre_start",
	"services.*.pre_stop", "services.*.privileged", "services.*.profiles",
	"services.*.pull_policy", "services.*.read_only", "services.*.restart", "services.*.runtime",
	"services.*.scale", "services.*.secrets", "services.*.security_opt", "services.*.shm_size",
	"services.*.stdin_open", "services.*.stop_grace_period", "services.*.stop_signal", "services.*.sysctls",
	"services.*.tmpfs", "services.*.tty", "services.*.ulimits", "services.*.user", "services.*.userns_mode",
	"services.*.uts", "services.*.volumes", "services.*.volumes_from", "services.*.working_dir",
	"networks.*.attachable", "networks.*.driver", "networks.*.driver_opts", "networks.*.enable_ipv4",
	"networks.*.enable_ipv6", "networks.*.external", "networks.*.internal", "networks.*.ipam",
	"networks.*.labels", "networks.*.name",
	"volumes.*.driver", "volumes.*.driver_opts", "volumes.*.external", "volumes.*.labels", "volumes.*.name",
	"configs.*.content", "configs.*.environment", "configs.*.external", "configs.*.file", "configs.*.name",
	"secrets.*.external", "secrets.*.file", "secrets.*.name",
}

// rule refuses a key, or only some of its values.
type rule struct {
	// ok are the values that are fine; none means that no value is.
	ok []string
	// text completes "KEY: VALUE" or "KEY"; mend says what to do.
	text, mend string
	// allow is the key of x-holdfast.allow whose reason opens this one.
	allow string
}

const (
	oneNode  = "a box is a single node"
	noReach  = "a container must not reach the box itself"
	unlikely = "what the box's hardware has is not known at bake time"
	once     = "each service has one"
	whole    = "a release is judged as a whole, and goes back as a whole"
	cgroup2  = "the kernel of the box (cgroup v2) does not have it"
	dropIt   = "remove it"
)

// rules are what one node cannot honour, by key pattern.
var rules = map[string]rule{
	"models":  {text: "is not honoured", mend: dropIt},
	"jobs":    {text: "is not honoured", mend: "make it a service with restart: \"no\""},
	"include": {text: "was not followed", mend: dropIt},

	"services.*.build":          {text: "an image is not built on the box", mend: "build it beforehand, name it with `image`, and lock it"},
	"services.*.develop":        {text: "is for a developer's machine", mend: dropIt},
	"services.*.provider":       {text: "nothing outside the stack can run a service on the box", mend: dropIt},
	"services.*.models":         {text: "is not honoured", mend: dropIt},
	"services.*.scale":          {ok: []string{"1"}, text: "each service runs once, " + oneNode, mend: "remove it"},
	"services.*.external_links": {text: "nothing outside the stack runs on the box", mend: dropIt},

	"services.*.post_start.[].privileged": {ok: []string{"false"}, text: noReach, mend: "set `user: root` if it needs root in the container"},
	"services.*.pre_stop.[].privileged":   {ok: []string{"false"}, text: noReach, mend: "set `user: root` if it needs root in the container"},

	"services.*.privileged":                     {ok: []string{"false"}, text: noReach, mend: "add the capabilities it needs with cap_add", allow: "privileged"},
	"services.*.use_api_socket":                 {ok: []string{"false"}, text: noReach, mend: dropIt},
	"services.*.network_mode":                   {ok: []string{"none", "bridge", "service:"}, text: "only none, bridge and service:NAME are honoured, " + noReach, mend: "publish ports instead", allow: "network_mode"},
	"services.*.pid":                            {ok: []string{"service:"}, text: "only the container's own and service:NAME are honoured, " + noReach, mend: dropIt, allow: "pid"},
	"services.*.ipc":                            {ok: []string{"private", "shareable", "none", "service:"}, text: "only private, shareable, none and service:NAME are honoured, " + noReach, mend: dropIt, allow: "ipc"},
	"services.*.uts":                            {text: "only the container's own uts namespace is honoured, " + noReach, mend: "use hostname", allow: "uts"},
	"services.*.userns_mode":                    {text: "is not honoured, " + noReach, mend: dropIt, allow: "userns_mode"},
	"services.*.cgroup":                         {ok: []string{"private"}, text: "only private is honoured, " + noReach, mend: dropIt, allow: "cgroup"},
	"services.*.cgroup_parent":                  {text: "the box places containers by their budgets", mend: dropIt},
	"services.*.devices":                        {text: unlikely, mend: dropIt, allow: "devices"},
	"services.*.device_cgroup_rules":            {text: unlikely, mend: dropIt, allow: "device_cgroup_rules"},
	"services.*.blkio_config.weight_device":     {text: unlikely, mend: "use weight", allow: "blkio_config"},
	"services.*.blkio_config.device_read_bps":   {text: unlikely, mend: dropIt, allow: "blkio_config"},
	"services.*.blkio_config.device_read_iops":  {text: unlikely, mend: dropIt, allow: "blkio_config"},
	"services.*.blkio_config.device_write_bps":  {text: unlikely, mend: dropIt, allow: "blkio_config"},
	"services.*.blkio_config.device_write_iops": {text: unlikely, mend: dropIt, allow: "blkio_config"},
	"services.*.gpus":                           {text: unlikely, mend: dropIt},
	"services.*.runtime":                        {ok: []string{"runc", "io.containerd.runc.v2"}, text: "the box has runc only", mend: dropIt},
	"services.*.platform":                       {ok: []string{"linux/amd64", "linux"}, text: "a box is linux/amd64", mend: "remove it, or name an image for linux/amd64"},
	"services.*.isolation":                      {ok: []string{"default"}, text: "is for Windows", mend: dropIt},
	"services.*.credential_spec":                {text: "is for Windows", mend: dropIt},
	"services.*.cpu_count":                      {text: "is for Windows", mend: "use cpus"},
	"services.*.cpu_percent":                    {text: "is for Windows", mend: "use cpus"},
	"services.*.cpu_rt_period":                  {text: cgroup2, mend: dropIt},
	"services.*.cpu_rt_runtime":                 {text: cgroup2, mend: dropIt},
	"services.*.mem_swappiness":                 {text: cgroup2, mend: "use memswap_limit"},
	"services.*.oom_kill_disable":               {ok: []string{"false"}, text: cgroup2, mend: "use oom_score_adj"},
	"services.*.storage_opt":                    {text: "the box's image store does not have it", mend: "write to a named volume"},
	"services.*.umask":                          {text: "the engine does not have it", mend: "set it in the entrypoint"},
	"services.*.pull_policy":                    {ok: []string{"missing", "if_not_present", "never"}, text: "images come with the release", mend: dropIt},
	"services.*.pull_refresh_after":             {text: "images come with the release", mend: dropIt},

	"services.*.deploy.mode":                                     {ok: []string{"replicated"}, text: "each service runs once, " + oneNode, mend: dropIt},
	"services.*.deploy.replicas":                                 {ok: []string{"1"}, text: "each service runs once, " + oneNode, mend: "remove it"},
	"services.*.deploy.placement":                                {text: oneNode, mend: dropIt},
	"services.*.deploy.endpoint_mode":                            {text: oneNode, mend: dropIt},
	"services.*.deploy.labels":                                   {text: "only a cluster has labels on services", mend: "use `labels` of the service"},
	"services.*.deploy.update_config.parallelism":                {ok: []string{"0", "1"}, text: "each service runs once, " + oneNode, mend: dropIt},
	"services.*.deploy.update_config.delay":                      {ok: []string{"0s", "0"}, text: "is the pause between one container and the next, and " + once, mend: dropIt},
	"services.*.deploy.update_config.monitor":                    {text: whole, mend: dropIt},
	"services.*.deploy.update_config.failure_action":             {text: whole, mend: dropIt},
	"services.*.deploy.update_config.max_failure_ratio":          {ok: []string{"0"}, text: "is a share of many containers, and " + once, mend: dropIt},
	"services.*.deploy.rollback_config":                          {text: whole, mend: dropIt},
	"services.*.deploy.resources.reservations.devices":           {text: unlikely, mend: dropIt},
	"services.*.deploy.resources.reservations.generic_resources": {text: oneNode, mend: dropIt},

	"services.*.volumes.[].image":            {text: "the engine on the box cannot mount images", mend: "use a named volume"},
	"services.*.volumes.[].bind.propagation": {ok: []string{"rprivate", "private"}, text: noReach, mend: dropIt},
	"services.*.volumes.[].bind.recursive":   {ok: []string{"enabled"}, text: "is not honoured", mend: dropIt},
	"services.*.volumes.[].type": {ok: []string{"volume", "bind", "tmpfs"}, text: "only volume, bind and tmpfs are honoured",
		mend: "use a named volume"},
	"services.*.networks.*.interface_name":         {text: "the engine on the box does not have it", mend: dropIt},
	"services.*.networks.*.gw_priority":            {text: "the engine on the box does not have it", mend: "use priority"},
	"services.*.networks.*.use_service_name_alias": {ok: []string{"true"}, text: "is not honoured", mend: dropIt},

	"networks.*.driver":         {ok: []string{"bridge"}, text: "only bridge is honoured, " + oneNode, mend: "remove it"},
	"networks.*.external":       {ok: []string{"false"}, text: "nothing outside the stack makes networks on the box", mend: "remove it: the box makes the network"},
	"networks.*.ipam.driver":    {ok: []string{"default"}, text: "the box has the default one only", mend: dropIt},
	"networks.*.enable_ipv4":    {ok: []string{"true"}, text: "the engine on the box does not have it", mend: dropIt},
	"volumes.*.driver":          {ok: []string{"local"}, text: "only local is honoured", mend: "remove it"},
	"volumes.*.external":        {ok: []string{"false"}, text: "nothing outside the stack makes volumes on the box", mend: "remove it: the box makes the volume"},
	"configs.*.external":        {ok: []string{"false"}, text: "nothing outside the stack makes configs on the box", mend: "use `file`"},
	"configs.*.template_driver": {text: oneNode, mend: dropIt},
	"configs.*.labels":          {text: oneNode, mend: dropIt},
	"secrets.*.external": {ok: []string{"false"}, text: "nothing outside the stack makes secrets on the box",
		mend: "use `x-holdfast: {generate: password}`"},
	"secrets.*.environment": {text: "a literal secret in a stack is the same on every box",
		mend: "use `x-holdfast: {generate: password}`"},
	"secrets.*.driver":          {text: oneNode, mend: dropIt},
	"secrets.*.driver_opts":     {text: oneNode, mend: dropIt},
	"secrets.*.template_driver": {text: oneNode, mend: dropIt},
	"secrets.*.labels":          {text: oneNode, mend: dropIt},
}

// lintKeys walks compose-go's merged model and refuses what the tables do
// not honour.
func (l *loading) lintKeys(dict map[string]any) { l.lintKey(dict, nil, nil, false) }

func (l *loading) lintKey(v any, pat, key []string, known bool) {
	name := strings.Join(pat, ".")
	if name == "services.*.pre_start.[]" {
		// An init container is specified as a service is, by the same keys.
		pat, name, known = pat[:2:2], "services.*", false
	}
	if r, ok := rules[name]; ok {
		if shown, bad := r.refuses(v); bad && !l.allowed(key, r.allow) {
			text, mend := r.text, r.mend
			if shown != "" {
				text = shown + ": " + text
			}
			if r.allow != "" {
				mend += allowMend(r.allow)
			}
			l.report(key, text, mend)
			return
		}
		known = true
	}
	if name == "volumes.*.driver_opts" {
		l.volumeOptions(v, key)
		return
	}
	known = known || slices.Contains(honoured, name)
	_, isMap := v.(map[string]any)
	if !known && len(pat) > 0 && !(leadsOn(name) && (isMap || v == nil)) {
		l.report(key, "this key is not honoured", dropIt)
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if strings.HasPrefix(k, "x-") && !userKeys(name) {
				l.lintExtension(name, append(slices.Clone(key), k))
				continue
			}
			if k == "per_replica" && name == "services.*" && len(key) > 2 {
				continue // of a pre_start hook: there is one replica
			}
			next := slices.Clone(pat)
			if userKeys(name) {
				next = append(next, "*")
			} else {
				next = append(next, k)
			}
			l.lintKey(e, next, append(slices.Clone(key), k), known)
		}
	case []any:
		for i, e := range v {
			l.lintKey(e, append(slices.Clone(pat), "[]"), append(slices.Clone(key), fmt.Sprint(i)), known)
		}
	}
}

// volumeOptions refuses options of volumes but those of one in memory: others
// name what the box does not have or must not be reached.
func (l *loading) volumeOptions(v any, key []string) {
	m, _ := v.(map[string]any)
	for _, k := range slices.Sorted(maps.Keys(m)) {
		s := fmt.Sprint(m[k])
		ok := k == "o" && !strings.ContainsFunc(s, func(r rune) bool { return r < '!' || r > '~' }) ||
			(k == "type" || k == "device") && s == "tmpfs"
		if !ok || m["type"] != "tmpfs" || m["device"] != "tmpfs" {
			l.report(append(slices.Clone(key), k), "a volume on the box is a folder of the data partition, or memory",
				"remove it, or write `{type: tmpfs, device: tmpfs, o: size=64m}`")
			return
		}
	}
}

// allowed says whether the service of a key path has a reason for what is
// refused otherwise.
func (l *loading) allowed(key []string, allow string) bool {
	if allow == "" || len(key) < 2 || key[0] != "services" {
		return false
	}
	_, ok := l.ext.services[key[1]].Allow[allow]
	return ok
}

func allowMend(key string) string {
	return fmt.Sprintf(", or give a reason: `x-holdfast: {allow: {%q: \"why\"}}`", key)
}

// allowable are the refused keys of a service that a reason opens; a path that
// is mounted from the box is "volumes.PATH".
var allowable = func() []string {
	out := []string{"security_opt"} // one of its values, see securityOption
	for _, r := range rules {
		if r.allow != "" {
			out = append(out, r.allow)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}()

// refuses says whether a value is refused and how to show it.
func (r rule) refuses(v any) (shown string, bad bool) {
	switch v.(type) {
	case nil:
		return "", false
	case map[string]any, []any:
		return "", true
	}
	s := fmt.Sprint(v)
	for _, ok := range r.ok {
		if s == ok || strings.HasSuffix(ok, ":") && strings.HasPrefix(s, ok) {
			return "", false
		}
	}
	if r.ok == nil && (s == "false" || s == "") {
		return "", false
	}
	return s, true
}

// leadsOn says whether a pattern is on the way to an honoured one.
func leadsOn(name string) bool {
	return slices.ContainsFunc(honoured, func(h string) bool { return strings.HasPrefix(h, name+".") })
}

// userKeys says whether people choose the keys below a pattern.
func userKeys(name string) bool {
	switch name {
	case "services", "networks", "volumes", "configs", "secrets", "services.*.depends_on", "services.*.networks",
		"services.*.ulimits":
		return true
	}
	return false
}

// lintExtension refuses x-holdfast where it means nothing; other extensions
// are other tools' business.
func (l *loading) lintExtension(parent string, key []string) {
	if key[len(key)-1] == extension && !slices.Contains([]string{"", "services.*", "volumes.*", "secrets.*"}, parent) {
		l.report(key, "x-holdfast means nothing here", "use it on a service, a volume or a secret, or at the top")
	}
}
