// SPDX-License-Identifier: Apache-2.0

//go:build engine

package sourcegraph

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/budget"
)

// scale divides the memory of the machine and of every service.
const scale = 16

// TestComesUp: our stack of 24 comes up in its declared order and healthy; its
// budgets are those of XS, scaled. Then every stand-in touches all it is
// guaranteed, in a control group that has a sixteenth of what XS has for
// services, and nobody is killed.
func TestComesUp(t *testing.T) {
	node := budget.Node{CPUs: 8, Memory: 32 * gib, Data: 362 * gib}
	b, err := budget.For(load(t, ourDir), "XS", node)
	if err != nil {
		t.Fatal(err)
	}
	room := (node.Memory - b.Reserve.Memory) / scale
	slice := limit(t, room)
	d := deploy(t, ourDir, nil)
	d.healthy()
	ordered(t, d, 24)
	reach(t, d)
	measured(t, d)
	t.Run("every guarantee at once", func(t *testing.T) { touch(t, d, b, slice, room) })
	t.Run("one takes all it can get", func(t *testing.T) { greed(t, d) })
}

// TestPublicComesUp: the 26 services of the public deployment, without a
// reservation, run too where there is room for all their limits.
func TestPublicComesUp(t *testing.T) {
	d := deploy(t, publicDir, nil)
	d.healthy()
	ordered(t, d, 26)
}

// TestMigratorFails: a migration that fails again and again keeps the front
// ends from starting on a schema they do not know, and nobody else.
func TestMigratorFails(t *testing.T) {
	d := deploy(t, ourDir, map[string]map[string]string{"migrator": {"STANDIN_DO": "exit 1", "STANDIN_STARTUP": "1m"}})
	front := map[string]bool{"sourcegraph-frontend-internal": true, "sourcegraph-frontend-0": true}
	r := d.await("a migrator in its crash loop and everything else well", func(r status.Report) bool {
		for _, s := range r.Services {
			switch {
			case s.Name == "migrator":
				if s.State != "crash-loop" {
					return false
				}
			case !front[s.Name] && (s.State != "running" || s.Health != "healthy"):
				return false
			}
		}
		return len(r.Services) == 24
	})
	for _, s := range r.Services {
		if front[s.Name] && s.State != "waiting" && s.State != "created" {
			t.Errorf("%s is %s", s.Name, s.State)
		}
	}
	said := false
	for _, c := range r.Conditions {
		said = said || c.Code == "service-crash-loop" && strings.Contains(c.Text, "migrator")
	}
	if !said {
		t.Errorf("no condition names the migrator: %+v", r.Conditions)
	}
	if starts, _ := d.times("start"); !starts["sourcegraph-frontend-internal"].IsZero() {
		t.Error("the front end was started before the migrator was done")
	}
}

// greed lets one service take memory without end, while all others hold what
// they are guaranteed: the kernel takes it from that one, it comes back, and
// nobody else notices.
func greed(t *testing.T, d *deployment) {
	const greedy = "pgsql-exporter"
	if err := d.tell(d.containers()[greedy], "/standin", "do", "oom"); err != nil {
		t.Fatal(err)
	}
	d.await("the exporter to be started again", func(r status.Report) bool {
		_, n := d.times("start")
		return n[greedy] == 2 && r.Stack == "healthy"
	})
	_, deaths := d.times("die")
	for name, n := range deaths {
		if name != "migrator" && name != greedy {
			t.Errorf("%s died %d times", name, n)
		}
	}
}

// ordered holds the engine's events to depends_on: nothing starts before what
// it waits for was healthy or had ended well, and nothing started twice.
func ordered(t *testing.T, d *deployment, want int) {
	t.Helper()
	cs := d.containers()
	if len(cs) != want {
		t.Errorf("%d containers, want %d", len(cs), want)
	}
	started, starts := d.times("start")
	healthy, _ := d.times("health_status: healthy")
	died, _ := d.times("die")
	for _, name := range d.st.Services {
		s, c := d.st.Project.Services[name], cs[name]
		if starts[name] != 1 {
			t.Errorf("%s was started %d times", name, starts[name])
		}
		if c.Name != name {
			t.Errorf("the container of %s is called %s", name, c.Name)
		}
		for dep, cond := range s.DependsOn {
			after, what := healthy[dep], "was healthy"
			if cond.Condition == types.ServiceConditionCompletedSuccessfully {
				after, what = died[dep], "had ended"
				if cs[dep].ExitCode != 0 {
					t.Errorf("%s ended with %d", dep, cs[dep].ExitCode)
				}
			}
			if after.IsZero() || started[name].Before(after) {
				t.Errorf("%s started %s, before %s %s (%s)", name, started[name], dep, what, after)
			}
		}
		if name == "migrator" {
			if c.Up() {
				t.Error("the migrator still runs")
			}
		} else if !c.Up() || c.OOMKilled {
			t.Errorf("%s is %s, killed for memory: %t", name, c.State, c.OOMKilled)
		}
	}
}

// reach asks one service from another, by the names the stack uses.
func reach(t *testing.T, d *deployment) {
	t.Helper()
	cs := d.containers()
	for _, c := range [][2]string{
		{"caddy", "http://sourcegraph-frontend-0:3080/healthz"},
		{"sourcegraph-frontend-0", "http://searcher-0:3181/healthz"},
		{"prometheus", "http://codeinsights-db-exporter:9187/metrics"},
		{"prometheus", "http://holdfast:4653/metrics"},
	} {
		if err := d.tell(cs[c[0]], "wget", "-q", "-O", "/dev/null", c[1]); err != nil {
			t.Errorf("%s does not reach %s: %v", c[0], c[1], err)
		}
	}
}

// measured asks the daemon for what cadvisor would say: cAdvisor's names, each
// service by the name of its container.
func measured(t *testing.T, d *deployment) {
	t.Helper()
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: running.Dial, DisableKeepAlives: true}}
	r, err := c.Get("http://127.0.0.1:4653/metrics")
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	for _, name := range d.st.Services {
		if name == "migrator" {
			continue
		}
		for _, metric := range []string{"container_memory_working_set_bytes", "container_cpu_usage_seconds_total", "container_spec_memory_limit_bytes"} {
			if want := metric + `{name="` + name + `"} `; !strings.Contains(string(b), want) {
				t.Errorf("there is no metric %s", want)
			}
		}
	}
}

// touch lets every stand-in hold the memory its service is guaranteed, and
// looks what the kernel says about it.
func touch(t *testing.T, d *deployment, b *budget.Budget, slice group, room int64) {
	cs := d.containers()
	for _, s := range b.Services {
		if s.OneShot {
			continue
		}
		// What the program itself has counts as well.
		if more := s.Guaranteed.Memory/scale - slice.below(cs[s.Name].ID).used(t); more > 0 {
			if err := d.tell(cs[s.Name], "/standin", "do", fmt.Sprintf("memory %d", more)); err != nil {
				t.Error(err)
			}
		}
	}
	var sum int64
	for name, c := range d.containers() {
		if name == "migrator" {
			continue
		}
		s, _ := b.Service(name)
		g := slice.below(c.ID)
		n := g.used(t)
		sum += n
		// A stand-in's own memory shrinks a little when it is idle.
		if want := s.Guaranteed.Memory / scale; n < want-want/16-1<<20 {
			t.Errorf("%s uses %d bytes, want the %d it is guaranteed", name, n, want)
		}
		if !c.Up() || c.OOMKilled {
			t.Errorf("%s is %s, killed for memory: %t", name, c.State, c.OOMKilled)
		}
		if n := g.killed(t); n != 0 {
			t.Errorf("the kernel killed %d processes of %s", n, name)
		}
	}
	if n := slice.killed(t); n != 0 {
		t.Errorf("the kernel killed %d processes of the group", n)
	}
	t.Logf("23 services hold %.2f GiB of the %.2f GiB there are", float64(sum)/float64(gib), float64(room)/float64(gib))
	if r := d.healthy(); r.Stack != "healthy" {
		t.Errorf("the stack is %s", r.Stack)
	}
	_, deaths := d.times("die")
	for name, n := range deaths {
		if name != "migrator" {
			t.Errorf("%s died %d times", name, n)
		}
	}
}

// group is a control group's folder, and the words of its version.
type group struct {
	dir                          string
	limit, unlimited, held, ooms string
}

// limit gives the control group of all containers so many bytes of memory
// and no more.
func limit(t *testing.T, bytes int64) group {
	t.Helper()
	g := group{dir: filepath.Join("/sys/fs/cgroup/memory", running.Cgroup()),
		limit: "memory.limit_in_bytes", unlimited: "-1", held: "total_rss", ooms: "memory.oom_control"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		g = group{dir: filepath.Join("/sys/fs/cgroup", running.Cgroup()),
			limit: "memory.max", unlimited: "max", held: "anon", ooms: "memory.events"}
	}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	set := func(n string) error { return os.WriteFile(filepath.Join(g.dir, g.limit), []byte(n), 0o644) }
	if err := set(strconv.FormatInt(bytes, 10)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set(g.unlimited); err != nil {
			t.Error(err)
		}
	})
	return g
}

// below is the group of a container.
func (g group) below(id string) group {
	g.dir = filepath.Join(g.dir, id)
	return g
}

// used is the memory a control group cannot give back: what programs hold,
// without the page cache.
func (g group) used(t *testing.T) int64 { return g.value(t, "memory.stat", g.held) }

// killed is how many processes the kernel ended for want of memory.
func (g group) killed(t *testing.T) int64 { return g.value(t, g.ooms, "oom_kill") }

func (g group) value(t *testing.T, file, key string) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s of %s has no %s", file, g.dir, key)
	return 0
}
