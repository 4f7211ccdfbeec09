// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/stack"
)

const (
	idA = "aaaaaaaaaaaa1111111111111111111111111111111111111111111111111111"
	idB = "bbbbbbbbbbbb2222222222222222222222222222222222222222222222222222"
)

func shop() *budget.Budget {
	return &budget.Budget{
		Size: "S", Node: budget.Node{CPUs: 2, Memory: 2 << 30}, Reserve: budget.Amount{CPU: 0.1, Memory: 512 << 20},
		Services: []budget.Service{
			{Name: "db", Class: stack.Critical, MemoryMin: 300 << 20, CPUWeight: 80, IOWeight: 400},
			{Name: "migrate", Class: stack.Critical, MemoryMin: 900 << 20, CPUWeight: 80, IOWeight: 400, OneShot: true},
			{Name: "web", Class: stack.Normal, MemoryLow: 200<<20 + 100, CPUWeight: 40, IOWeight: 100},
			{Name: "api", Class: stack.Normal, MemoryLow: 100 << 20, CPUWeight: 20, IOWeight: 100},
			{Name: "report", Class: stack.BestEffort, CPUWeight: 1, IOWeight: 25},
		},
		Volumes: []budget.Volume{{Name: "db", Bytes: 800 << 20}, {Name: "cache", Bytes: 100<<20 + 7}, {Name: "free"}},
	}
}

func TestPlan(t *testing.T) {
	slices, services := plan(shop())
	for name, want := range map[string]Share{
		top:            {300 << 20, 600<<20 + 100, 141, 100},
		criticalSlice:  {300 << 20, 300 << 20, 80, 400},
		normalSlice:    {0, 300<<20 + 100, 60, 200},
		bestEffortPart: {0, 0, 1, 25},
	} {
		if slices[name] != want {
			t.Errorf("%s: %+v, want %+v", name, slices[name], want)
		}
	}
	if want := (Share{900 << 20, 900 << 20, 80, 400}); services["migrate"] != want {
		t.Errorf("migrate: %+v", services["migrate"])
	}
}

// TestPlanHolds: protection adds up the tree and never claims the reserve; the
// kernel takes each weight, and slices keep the proportion of what is in them.
func TestPlanHolds(t *testing.T) {
	classes := []stack.Class{stack.Critical, stack.Normal, stack.BestEffort}
	rapid.Check(t, func(t *rapid.T) {
		b := &budget.Budget{Node: budget.Node{Memory: 64 << 30}, Reserve: budget.Amount{Memory: 4 << 30}}
		for i := range rapid.IntRange(0, 60).Draw(t, "services") {
			b.Services = append(b.Services, budget.Service{
				Name: fmt.Sprint(i), Class: rapid.SampledFrom(classes).Draw(t, "class"), OneShot: rapid.Bool().Draw(t, "one-shot"),
				MemoryMin: rapid.Int64Range(0, 4<<30).Draw(t, "min"), MemoryLow: rapid.Int64Range(0, 4<<30).Draw(t, "low"),
				CPUWeight: rapid.IntRange(1, 10000).Draw(t, "cpu"), IOWeight: rapid.IntRange(1, 10000).Draw(t, "io"),
			})
		}
		slices, _ := plan(b)
		var sum Share
		for name, s := range slices {
			if s.MemoryMin > s.MemoryLow || s.MemoryLow > 60<<30 || s.CPUWeight < 1 || s.CPUWeight > 10000 || s.IOWeight < 1 || s.IOWeight > 10000 {
				t.Errorf("%s: %+v", name, s)
			}
			if name != top {
				sum.MemoryMin += s.MemoryMin
			}
		}
		if len(slices) > 0 && slices[top].MemoryMin != min(sum.MemoryMin, 60<<30) {
			t.Errorf("top protects %d, what is in it %d", slices[top].MemoryMin, sum.MemoryMin)
		}
	})
}

// TestBoxGroups: slices through systemd, scopes by their files, and nothing
// twice.
func TestBoxGroups(t *testing.T) {
	root := t.TempDir()
	put(t, root, "proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	db, web := "holdfast.slice/holdfast-critical.slice/docker-"+idA+".scope", "holdfast.slice/holdfast-normal.slice/docker-"+idB+".scope"
	for _, g := range []string{"holdfast.slice", "holdfast.slice/holdfast-critical.slice", "holdfast.slice/holdfast-normal.slice", "holdfast.slice/holdfast-besteffort.slice", db, web} {
		group2(t, root, g)
	}
	ctl := &systemctl{root: root}
	e := New(Config{Root: root, Slices: true, Run: ctl, Quotas: newQuotas()})
	running := []Container{{Service: "db", ID: idA}, {Service: "web", ID: idB}, {Service: "api", ID: strings.Repeat("c", 64)}, {Service: "stranger", ID: idB}}
	if got := codes(e.Apply(t.Context(), shop(), running, nil)); got != "" {
		t.Error(got)
	}
	const want = `systemctl set-property --runtime holdfast.slice MemoryMin=314572800 MemoryLow=629145700 CPUWeight=141 IOWeight=100
systemctl set-property --runtime holdfast-critical.slice MemoryMin=314572800 MemoryLow=314572800 CPUWeight=80 IOWeight=400
systemctl set-property --runtime holdfast-normal.slice MemoryMin=0 MemoryLow=314572900 CPUWeight=60 IOWeight=200
systemctl set-property --runtime holdfast-besteffort.slice MemoryMin=0 MemoryLow=0 CPUWeight=1 IOWeight=25`
	if got := strings.Join(ctl.calls, "\n"); got != want {
		t.Errorf("got\n%s", got)
	}
	files := []string{"memory.min", "memory.low", "cpu.weight", "io.weight"}
	if got := values(t, root+"/sys/fs/cgroup/"+db, files...); got != "cpu.weight=80 io.weight=default 400 memory.low=314572800 memory.min=314572800" {
		t.Error(got)
	}
	if got := values(t, root+"/sys/fs/cgroup/"+web, files...); got != "cpu.weight=40 io.weight=default 100 memory.low=209715200 memory.min=0" {
		t.Error(got)
	}
	// Again: nothing to do. A restarted container has a group of its own.
	ctl.calls = nil
	group2(t, root, web)
	if got := codes(e.Apply(t.Context(), shop(), running, nil)); got != "" || len(ctl.calls) != 0 {
		t.Error(got, ctl.calls)
	}
	if got := values(t, root+"/sys/fs/cgroup/"+web, "cpu.weight"); got != "cpu.weight=40" {
		t.Error(got)
	}
	// What can't be written is told and does not end the rest.
	put(t, root, "sys/fs/cgroup/"+db+"/cpu.weight", "100\n")
	put(t, root, "sys/fs/cgroup/"+web+"/cpu.weight", "100\n")
	if err := os.Remove(root + "/sys/fs/cgroup/" + db + "/memory.min"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(root+"/sys/fs/cgroup/"+db+"/memory.min", 0o755); err != nil {
		t.Fatal(err)
	}
	if got := codes(e.Apply(t.Context(), shop(), running, nil)); got != "limits-not-applied" {
		t.Error(got)
	}
	if got := values(t, root+"/sys/fs/cgroup/"+web, "cpu.weight"); got != "cpu.weight=40" {
		t.Error(got)
	}
}

// TestHostGroups: on version 1 there are weights and a soft limit, and it is
// said that there is no more.
func TestHostGroups(t *testing.T) {
	root := t.TempDir()
	put(t, root, "proc/self/mountinfo", `31 25 0:28 / /cg/blkio rw - cgroup cgroup rw,blkio
32 25 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu
34 25 0:31 / /cg/memory rw - cgroup cgroup rw,memory
`)
	for name, v := range map[string]string{"cpu/docker/" + idA + "/cpu.shares": "1024\n", "blkio/docker/" + idA + "/blkio.weight": "500\n", "memory/docker/" + idA + "/memory.soft_limit_in_bytes": "9223372036854771712\n"} {
		put(t, root, "cg/"+name, v)
	}
	e := New(Config{Root: root, Quotas: newQuotas()})
	if got := codes(e.Apply(t.Context(), shop(), []Container{{Service: "db", ID: idA}}, nil)); got != "memory-protection-observed" {
		t.Error(got)
	}
	for dir, want := range map[string]string{"cpu": "cpu.shares=819", "blkio": "blkio.weight=1000", "memory": "memory.soft_limit_in_bytes=314572800"} {
		file, _, _ := strings.Cut(want, "=")
		if got := values(t, root+"/cg/"+dir+"/docker/"+idA, file); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	e = New(Config{Root: t.TempDir(), Quotas: newQuotas()})
	if got := codes(e.Apply(t.Context(), shop(), nil, nil)); got != "limits-not-applied" {
		t.Error(got)
	}
	if got := codes(e.Apply(t.Context(), nil, nil, nil)); got != "" {
		t.Errorf("without a budget: %s", got)
	}
}

func TestVolumes(t *testing.T) {
	kept := filepath.Join(t.TempDir(), "projects.json")
	q := newQuotas("/v/db", "/v/cache", "/v/free", "/v/other")
	volumes := []Volume{{"db", "/v/db"}, {"cache", "/v/cache"}, {"free", "/v/free"}, {"other", "/v/other"}, {"gone", "/v/gone"}}
	woken := 0
	config := Config{Root: t.TempDir(), Quotas: q, Kept: kept, Wake: func() { woken++ }}
	disk := func(e *Enforcer, b *budget.Budget) string {
		e.Apply(t.Context(), b, nil, volumes)
		return codes(e.told["volumes"])
	}
	e := New(config)
	if got := disk(e, shop()); got != "" {
		t.Error(got)
	}
	const want = `adopt /v/db 1048577
adopt /v/cache 1048578
adopt /v/free 1048579
adopt /v/other 1048580
limit /v/db 1048577 800 MiB
limit /v/cache 1048578 100 MiB`
	if got := q.did(); got != want {
		t.Errorf("got\n%s", got)
	}
	// Nothing twice, and a daemon that starts again knows the numbers.
	e = New(config)
	if got := disk(e, shop()) + q.did(); got != "" {
		t.Error(got)
	}
	// A volume made anew under an old name has the old number; without a
	// budget limits stay.
	q.folders["/v/cache"] = 0
	if disk(e, nil); q.did() != "adopt /v/cache 1048578" {
		t.Error("not its old number")
	}
	// Without what was kept the folders say their numbers; two folders with
	// one number do not share a budget, and a number with files is nobody's.
	if err := os.WriteFile(kept, []byte(`{"next":5}`), 0o600); err != nil {
		t.Fatal(err)
	}
	q.folders["/v/other"] = 1048577
	q.use[1048580] = quota.Usage{Files: 3}
	e = New(config)
	if got := disk(e, shop()); got != "" {
		t.Error(got)
	}
	if got := q.did(); got != "adopt /v/other 1048581" {
		t.Errorf("got %s", got)
	}
	// Full ones are told of, in time.
	q.use[1048577] = quota.Usage{Used: 730 << 20, Limit: 800 << 20}
	q.use[1048578] = quota.Usage{Used: 100 << 20, Limit: 100 << 20}
	before := woken
	if got := disk(e, shop()); got != "volume-nearly-full volume-full" || woken != before+1 {
		t.Error(got, woken-before)
	}
	if disk(e, shop()); woken != before+1 {
		t.Error("woken although nothing changed")
	}
	q.fail = errors.New("broken")
	if got := disk(e, shop()); got != "limits-not-applied" {
		t.Error(got)
	}
	q.fail, q.none = nil, true
	if got := disk(New(config), shop()); got != "disk-budget-observed" {
		t.Error(got)
	}
	c := e.Conditions()
	if got := disk(e, shop()); got != "disk-budget-observed" || !strings.Contains(e.told["volumes"][0].Text, "db, cache are observed") {
		t.Errorf("%s %+v %+v", got, e.told["volumes"], c)
	}
}

func TestBallastAndStore(t *testing.T) {
	d := &disks{space: map[string]Space{"/data": {10 * gib, 5 * gib}, "/state": {4 * gib, 3 * gib}}, ballast: map[string]int64{}}
	q := newQuotas("/state/store")
	mounted := true
	e := New(Config{Root: t.TempDir(), Quotas: q, Space: d.Space, Ballast: d, Data: "/data", State: "/state", Store: []string{"/state/store"}, Mounted: func(string) bool { return mounted }})
	apply := func() string { return codes(e.Apply(t.Context(), nil, nil, nil)) }
	if got := apply(); got != "" {
		t.Error(got)
	}
	if d.ballast["/data/ballast"] != 160*mib || d.ballast["/state/ballast"] != 64*mib {
		t.Errorf("%v", d.ballast)
	}
	// 3 GiB less the ballast and an eighth of 4 GiB, in steps.
	if got := q.did(); got != "adopt /state/store 1048576\nlimit /state/store 1048576 2496 MiB" {
		t.Error(got)
	}
	if rooms := e.Rooms(); len(rooms) != 3 || rooms[2].Free != 2496*mib || rooms[0].Total != 10*gib {
		t.Errorf("%+v", rooms)
	}
	if got := apply() + q.did(); got != "" {
		t.Error(got)
	}
	// The journal grows: the store may use less.
	d.space["/state"] = Space{4 * gib, 2 * gib}
	q.use[storeProject] = quota.Usage{Used: gib, Limit: 2496 * mib}
	if apply(); q.did() != "limit /state/store 1048576 2560 MiB" {
		t.Error("the store does not follow")
	}
	q.use[storeProject] = quota.Usage{Used: 3 * gib, Limit: 2560 * mib}
	d.space["/state"] = Space{4 * gib, 300 * mib}
	if got := apply(); got != "store-full" {
		t.Error(got)
	}
	// A full disk: ballast is given back at the last mark and comes again when
	// there is room enough.
	for _, step := range []struct {
		free int64
		want string
		size int64
	}{
		{110 * mib, "", 160 * mib}, {102 * mib, "ballast-released", 0}, {262 * mib, "ballast-released", 0}, {500 * mib, "ballast-released", 0}, {600 * mib, "", 160 * mib},
	} {
		d.space["/data"] = Space{10 * gib, step.free}
		if e.told["ballast"] = e.ballasts(); codes(e.told["ballast"]) != step.want || d.ballast["/data/ballast"] != step.size {
			t.Errorf("%d MiB free: %s, %d MiB", step.free/mib, codes(e.told["ballast"]), d.ballast["/data/ballast"]/mib)
		}
	}
	d.space["/data"], d.ballast["/data/ballast"], d.noRoom = Space{10 * gib, gib}, 0, true
	if got := codes(e.ballasts()); got != "limits-not-applied" {
		t.Error(got)
	}
	// Nothing is put into the folder under data that is not mounted.
	d.noRoom, mounted = false, false
	if got := codes(e.ballasts()); got != "" || d.ballast["/data/ballast"] != 0 || len(e.Rooms()) != 2 {
		t.Error(got, d.ballast)
	}
	// Volumes without a budget leave the others what is theirs, and the reserve.
	mounted = true
	d.space["/data"] = Space{10 * gib, 6 * gib}
	q.folders["/v/db"], q.folders["/v/free"], q.folders["/v/other"] = 0, 0, 0
	q.use[firstProject] = quota.Usage{Used: 300 * mib}
	q.use[firstProject+1] = quota.Usage{Used: gib}
	e.ids = &ids{Next: firstProject + 3, Volumes: map[string]uint32{"/v/db": firstProject, "/v/free": firstProject + 1, "/v/other": firstProject + 2}}
	q.did()
	e.Apply(t.Context(), shop(), nil, []Volume{{"db", "/v/db"}, {"free", "/v/free"}, {"other", "/v/other"}})
	// 6 GiB less 500 MiB of db's and 352 MiB of the reserve, and less the
	// ballast that was made.
	const want = "adopt /v/db 1048577\nadopt /v/free 1048578\nadopt /v/other 1048579\n" +
		"limit /v/db 1048577 800 MiB\nlimit /v/free 1048578 6144 MiB\nlimit /v/other 1048579 5120 MiB"
	if got := q.did(); got != want {
		t.Errorf("got\n%s", got)
	}
	q.none = true
	if got := apply(); got != "store-budget-observed" {
		t.Error(got)
	}
	delete(q.folders, "/state/store")
	if got := apply(); got != "" {
		t.Error(got)
	}
}

// TestBallastIsStable: whatever the room, one decision leads to no second one.
func TestBallastIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Space{Total: rapid.Int64Range(64*mib, 100<<40).Draw(t, "total")}
		s.Free = rapid.Int64Range(0, s.Total).Draw(t, "free")
		have := rapid.SampledFrom([]int64{0, ballastSize(s.Total)}).Draw(t, "have")
		switch decideBallast(s, have) {
		case release:
			s.Free, have = s.Free+have, 0
		case makeIt:
			s.Free, have = s.Free-ballastSize(s.Total)+have, ballastSize(s.Total)
		}
		if s.Free < 0 || decideBallast(s, have) != leave {
			t.Errorf("%+v with %d: again %d", s, have, decideBallast(s, have))
		}
		if l := storeLimit(s, 0); l > s.Total && l > 64*mib {
			t.Errorf("the store may use %d of %d", l, s.Total)
		}
	})
}

// TestRealBallast makes one on this machine's disk.
func TestRealBallast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ballast")
	var f Files
	if n, err := f.Size(path); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	if err := f.Make(path, 3*mib); err != nil {
		t.Skipf("this file system can't allocate: %v", err)
	}
	if n, err := f.Size(path); n < 3*mib || err != nil {
		t.Error(n, err)
	}
	for range 2 {
		if err := f.Remove(path); err != nil {
			t.Error(err)
		}
	}
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Size(path); err == nil {
		t.Error("a link is a ballast")
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func FuzzIDs(f *testing.F) {
	f.Add([]byte(`{"next":1048579,"volumes":{"/a":1048577,"/b":1048578}}`))
	f.Add([]byte(`{"next":1048579,"volumes":{"/a":1048577,"/b":1048577}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := parseIDs(data)
		if err != nil {
			return
		}
		id, _, err := i.give("/new volume", 0, func(uint32) (bool, error) { return false, nil })
		if err != nil {
			return
		}
		for path, other := range i.Volumes {
			if other == id && path != "/new volume" {
				t.Errorf("%s has %d too", path, id)
			}
		}
	})
}
