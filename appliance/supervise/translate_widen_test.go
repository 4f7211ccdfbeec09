// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/stack"
)

func TestTranslateHooks(t *testing.T) {
	d, dir, err := load(t, map[string]string{"compose.yaml": `
name: demo
services:
  web:
    image: x.test/a:1
    command: [serve]
    environment: {A: own, B: own}
    networks: {front: {ipv4_address: 172.30.0.5, aliases: [www]}}
    ports: ["80:80"]
    volumes: ["data:/data", /scratch]
    healthcheck: {test: [CMD, ok]}
    labels: {team: blue}
    pre_start:
      - {command: [migrate], environment: {B: init}}
      - {image: "x.test/b:1", user: "5", volumes: ["more:/more", "./f:/f:ro"]}
    post_start: [{command: [warm, up], user: root, working_dir: /srv, environment: {C: d}}]
    pre_stop: [{command: "drain now"}]
networks: {front: {ipam: {config: [{subnet: 172.30.0.0/24}]}}}
volumes: {data: {}, more: {}}
`, "f": "f"})
	if err != nil {
		t.Fatal(err)
	}
	h := d.Services[0].Hooks
	if got := fmt.Sprint(h.PostStart, h.PreStop); got != "[{[warm up] root /srv [C=d] false}] [{[drain now]   [] false}]" {
		t.Errorf("commands: %s", got)
	}
	if len(h.PreStart) != 2 {
		t.Fatalf("%d init containers", len(h.PreStart))
	}
	for i, c := range h.PreStart {
		if want := fmt.Sprintf("demo-web-pre-start-%d", i); c.Name != want {
			t.Errorf("name %s, want %s", c.Name, want)
		}
		l := c.Config.Labels
		if l[labelHook] != fmt.Sprintf("pre_start.%d", i) || l["com.docker.compose.oneoff"] != "True" || l["com.docker.compose.service"] != "web" || l["team"] != "blue" || l[labelHash] != "" {
			t.Errorf("labels %v", l)
		}
		if e := c.Networks["demo_front"]; e == nil || e.IPAMConfig != nil || len(e.Aliases) > 0 {
			t.Errorf("init container %d has an address or a name of the service: %+v", i, e)
		}
		if len(c.Host.PortBindings) > 0 || c.Config.Healthcheck != nil {
			t.Errorf("init container %d has ports or a health check", i)
		}
		if got := fmt.Sprint(c.Host.VolumesFrom); got != "[demo-web-1]" {
			t.Errorf("volumes from %s", got)
		}
		if c.Host.RestartPolicy.Name != "no" {
			t.Errorf("restart policy %s", c.Host.RestartPolicy.Name)
		}
	}
	if c := h.PreStart[0].Config; fmt.Sprint(c.Env, c.Cmd) != "[A=own B=init] [migrate]" {
		t.Errorf("first: %v %v", c.Env, c.Cmd)
	}
	if c := h.PreStart[1]; c.Config.User != "5" || fmt.Sprint(c.Config.Cmd) != "[serve]" || fmt.Sprint(c.Host.Binds) != "["+dir+"/f:/f:ro demo_more:/more:rw]" {
		t.Errorf("second: %+v", c)
	}
	if !slices.ContainsFunc(d.Volumes, func(v engine.Volume) bool { return v.Name == "demo_more" }) {
		t.Errorf("the volume of an init container is not made: %v", d.Volumes)
	}
}

// TestHashCoversInit: another init container is another generation of the
// service; another command after the start is not.
func TestHashCoversInit(t *testing.T) {
	hash := func(more string) string {
		d, _, err := load(t, map[string]string{"compose.yaml": "name: demo\nservices:\n  web:\n    image: x.test/a:1\n" + more})
		if err != nil {
			t.Fatal(err)
		}
		return d.Services[0].Hash
	}
	// Each load has its own folder, whose path is in a label and not in the hash.
	plain := hash("")
	if hash("    post_start: [{command: [x]}]\n") != plain {
		t.Error("a command after the start changes the container")
	}
	if hash("    pre_start: [{command: [x]}]\n") == plain {
		t.Error("an init container does not change the service")
	}
}

func TestTranslateBudget(t *testing.T) {
	dir := writeStack(t, `
name: demo
services:
  web: {image: x.test/a:1, cpu_quota: 10000, cpu_period: 100000, memswap_limit: 16m, mem_limit: 8m, mem_reservation: 8m}
  own: {image: x.test/a:1, oom_score_adj: 5, cpu_shares: 7, x-holdfast: {class: best-effort, shed-order: 3}}
  free: {image: x.test/a:1, mem_limit: 8m}
`)
	st, err := stack.Load(t.Context(), dir, stack.Options{Digests: map[string]string{"x.test/a:1": zeros}})
	if err != nil {
		t.Fatal(err)
	}
	b := &budget.Budget{Services: []budget.Service{
		{Name: "web", Class: stack.Critical, Limit: budget.Amount{CPU: 1.5, Memory: 64 << 20, Pids: 30},
			Guaranteed: budget.Amount{CPU: 1, Memory: 32 << 20}, OOMScoreAdj: -500, CPUWeight: 300},
		{Name: "own", Class: stack.BestEffort, Sheddable: true, ShedOrder: 3, OOMScoreAdj: 900, CPUWeight: 20,
			Limit: budget.Amount{Memory: 8 << 20}, Guaranteed: budget.Amount{Memory: 16 << 20}},
	}}
	d, err := Translate(st.Project, st.Services, Options{Budget: b, Extensions: st.Extensions, Slices: true})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range d.Services {
		h := s.Spec.Host
		pids := int64(0)
		if h.PidsLimit != nil {
			pids = *h.PidsLimit
		}
		got[s.Name] = fmt.Sprintf("%s %t %d: %s memory %d swap %d reserved %d cpu %d quota %d shares %d oom %d pids %d", s.Class, s.Sheddable, s.ShedOrder,
			h.CgroupParent, h.Memory>>20, h.MemorySwap>>20, h.MemoryReservation>>20, h.NanoCPUs, h.CPUQuota, h.CPUShares, h.OomScoreAdj, pids)
	}
	for name, want := range map[string]string{
		"web":  "critical false 0: holdfast-critical.slice memory 64 swap 64 reserved 32 cpu 1500000000 quota 0 shares 7841 oom -500 pids 30",
		"own":  "best-effort true 3: holdfast-besteffort.slice memory 8 swap 0 reserved 8 cpu 0 quota 0 shares 7 oom 5 pids 0",
		"free": "normal false 0: holdfast-normal.slice memory 8 swap 0 reserved 0 cpu 0 quota 0 shares 0 oom 0 pids 0",
	} {
		if got[name] != want {
			t.Errorf("%s: %s\nwant %s", name, got[name], want)
		}
	}
}

// TestSharesOf: the runtime turns shares back into the weight that was meant.
func TestSharesOf(t *testing.T) {
	for _, w := range []int{1, 2, 20, 99, 100, 101, 300, 9999, 10000} {
		shares := sharesOf(w)
		if back := 1 + (shares-2)*9999/262142; back != int64(w) || shares < 2 || shares > 262144 {
			t.Errorf("weight %d is %d shares, which is weight %d", w, shares, back)
		}
	}
	if sharesOf(0) != 2 || sharesOf(1<<20) != 262144 {
		t.Error("weights out of bounds")
	}
}

func TestTranslateShares(t *testing.T) {
	d, _, err := load(t, map[string]string{"compose.yaml": `
name: demo
services:
  db: {image: x.test/a:1, ipc: shareable, container_name: base}
  web: {image: x.test/b:1, links: ["db:database"], volumes_from: ["db:ro"], ipc: "service:db", depends_on: {off: {condition: service_started, required: false}}}
  off: {image: x.test/b:1, profiles: [off]}
`})
	if err != nil {
		t.Fatal(err)
	}
	web := d.service("web")
	e := web.Spec.Networks["demo_default"]
	if got := strings.Join(e.Links, " "); got != "base:database base:db-1 base:demo-db-1" {
		t.Errorf("links %s", got)
	}
	if got := strings.Join(e.Aliases, " "); got != "demo-web-1 web" {
		t.Errorf("aliases %s", got)
	}
	if h := web.Spec.Host; fmt.Sprint(h.VolumesFrom) != "[base:ro]" || h.IpcMode != "container:base" {
		t.Errorf("%v %v", h.VolumesFrom, h.IpcMode)
	}
	if len(web.DependsOn) != 1 || strings.Contains(web.Spec.Config.Labels["com.docker.compose.depends_on"], "off") {
		t.Errorf("depends on %v", web.DependsOn)
	}
}

func TestTranslateProfile(t *testing.T) {
	d, dir, err := load(t, map[string]string{
		"compose.yaml": "name: demo\nservices:\n  web: {image: x.test/a:1, security_opt: [\"seccomp=./p.json\", \"systempaths=unconfined\", \"no-new-privileges:false\"],\n" +
			"    x-holdfast: {allow: {security_opt: \"the tests look at it\"}}}\n",
		"p.json": "{\n \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n"})
	if err != nil {
		t.Fatal(err)
	}
	h := d.Services[0].Spec.Host
	if got := strings.Join(h.SecurityOpt, " "); got != `seccomp={"defaultAction":"SCMP_ACT_ALLOW"} no-new-privileges:false` {
		t.Errorf("%s: %s", dir, got)
	}
	if h.MaskedPaths == nil || h.ReadonlyPaths == nil || len(h.MaskedPaths)+len(h.ReadonlyPaths) > 0 {
		t.Errorf("masked %v, read-only %v", h.MaskedPaths, h.ReadonlyPaths)
	}
}
