// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	idA = "aaaaaaaaaaaa1111111111111111111111111111111111111111111111111111"
	idB = "bbbbbbbbbbbb2222222222222222222222222222222222222222222222222222"
)

// tree lays a machine out from an archive, with A and B for the two ids.
func tree(t testing.TB, name string) string {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, f := range a.Files {
		put(t, root, strings.NewReplacer("IDA", idA, "IDB", idB).Replace(f.Name), strings.NewReplacer("IDA", idA, "IDB", idB).Replace(string(f.Data)))
	}
	return root
}

func put(t testing.TB, root, name, content string) {
	t.Helper()
	at := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// quotas answers for the folders it knows and has no projects elsewhere.
func quotas(root string, known map[string]quota.Usage) func(string) (quota.Usage, error) {
	return func(path string) (quota.Usage, error) {
		if u, ok := known[strings.TrimPrefix(path, root)]; ok {
			return u, nil
		}
		return quota.Usage{}, quota.ErrNone
	}
}

// TestGolden reads whole machines: version 2 with the systemd driver, version
// 1 with the cgroupfs driver.
func TestGolden(t *testing.T) {
	for _, name := range []string{"v1", "v2", "v2-cgroupfs", "v1-systemd"} {
		t.Run(name, func(t *testing.T) {
			root := tree(t, name+".txtar")
			for _, dir := range []string{"/volumes/db/_data", "/volumes/cache/_data", "/var/lib/containerd"} {
				if err := os.MkdirAll(root+dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			r := New(Config{
				Root:  root,
				Disks: []Place{{"engine", "/var/lib/containerd"}, {"data", "/not/there"}},
				Quota: quotas(root, map[string]quota.Usage{
					"/var/lib/containerd": {Project: 1, Used: 10 << 20, Limit: 100 << 20},
					"/volumes/db/_data":   {Project: 2, Used: 3 << 20, Limit: 8 << 20},
				}),
				Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
			})
			u, err := r.Read(t.Context(), []Target{
				{Service: "db", Container: idA, Volumes: []Place{{"db", "/volumes/db/_data"}, {"cache", "/volumes/cache/_data"}}},
				{Service: "gone", Container: strings.Repeat("c", 64)},
				{Service: "web", Container: idB, PID: 4242},
				{Service: "bad", Container: "../../etc"},
			})
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(u, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; got\n%s", golden, got)
			}
			if r.V2() != strings.HasPrefix(name, "v2") {
				t.Errorf("V2 is %v", r.V2())
			}
		})
	}
}

func services(t *testing.T, r *Reader, targets ...Target) string {
	t.Helper()
	u, err := r.Read(t.Context(), targets)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range u.Services {
		names = append(names, s.Service)
	}
	return strings.Join(names, " ")
}

// TestComesAndGoes: a container that ended has no usage, one that started again
// elsewhere is found, and the tree is searched at most every 10 s for one that
// is not there.
func TestComesAndGoes(t *testing.T) {
	root := tree(t, "v2.txtar")
	now := time.Unix(1000, 0)
	r := New(Config{Root: root, Quota: quotas(root, nil), Now: func() time.Time { return now }})
	a, b := Target{Service: "a", Container: idA}, Target{Service: "b", Container: idB}
	if got := services(t, r, a, b); got != "a b" {
		t.Fatal(got)
	}
	at := filepath.Join(root, "sys/fs/cgroup/holdfast.slice/holdfast-critical.slice/docker-"+idA+".scope")
	away := filepath.Join(root, "sys/fs/cgroup/elsewhere/docker-"+idA+".scope")
	if err := os.Mkdir(filepath.Dir(away), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at, away+".off"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := services(t, r, a, b); got != "b" {
			t.Fatalf("ended: %s", got)
		}
	}
	if err := os.Rename(away+".off", away); err != nil {
		t.Fatal(err)
	}
	now = now.Add(searchAgain - time.Second)
	if got := services(t, r, a, b); got != "b" {
		t.Fatalf("searched again too soon: %s", got)
	}
	now = now.Add(time.Second)
	if got := services(t, r, a, b); got != "a b" {
		t.Fatalf("back: %s", got)
	}
	// At its old place again it is found at once: that is where others were.
	if err := os.Rename(away, at); err != nil {
		t.Fatal(err)
	}
	services(t, r, a, b)
	if got := services(t, r, a, b); got != "a b" {
		t.Fatalf("where others were: %s", got)
	}
}

// TestBroken: what the kernel never writes is an error that names the file,
// and all else is read.
func TestBroken(t *testing.T) {
	for name, want := range map[string]string{
		"memory.current": "memory.current: not what", "memory.stat": "memory.stat: not what", "cpu.stat": "cpu.stat: not what", "cpu.max": "cpu.max: not what",
		"memory.events": "memory.events: not what", "memory.pressure": "memory.pressure: not what", "pids.current": "pids.current: not what",
	} {
		root := tree(t, "v2.txtar")
		put(t, root, "sys/fs/cgroup/holdfast.slice/holdfast-critical.slice/docker-"+idA+".scope/"+name, "12 monkeys\n")
		r := New(Config{Root: root, Quota: quotas(root, nil)})
		u, err := r.Read(t.Context(), []Target{{Service: "a", Container: idA}, {Service: "b", Container: idB}})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if len(u.Services) != 2 || u.Services[1].Memory == 0 {
			t.Errorf("%s: %+v", name, u.Services)
		}
	}
	r := New(Config{Root: t.TempDir()})
	if _, err := r.Read(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "/proc/stat") || !strings.Contains(err.Error(), "mountinfo") {
		t.Errorf("empty machine: %v", err)
	}
	root := t.TempDir()
	put(t, root, "proc/self/mountinfo", "1 1 0:1 / / rw - ext4 /dev/vda rw\n")
	if _, err := New(Config{Root: root}).Read(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no control groups") {
		t.Errorf("no control groups: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(Config{Root: tree(t, "v2.txtar")}).Read(ctx, []Target{{}}); err == nil {
		t.Error("a cancelled read is good")
	}
}

// TestForeignProcess: a number of a process is only believed where its group
// names the container.
func TestForeignProcess(t *testing.T) {
	root := tree(t, "v2.txtar")
	put(t, root, "proc/77/cgroup", "0::/system.slice/ssh.service\n")
	put(t, root, "sys/fs/cgroup/system.slice/ssh.service/cpu.stat", "usage_usec 99\n")
	r := New(Config{Root: root, Quota: quotas(root, nil)})
	u, err := r.Read(t.Context(), []Target{{Service: "a", Container: idA, PID: 77}})
	if err != nil || len(u.Services) != 1 || u.Services[0].Memory == 0 {
		t.Errorf("%+v, %v", u.Services, err)
	}
}

// TestGauge measures a volume that has no quota, once, and the reader says when.
func TestGauge(t *testing.T) {
	root := tree(t, "v2.txtar")
	put(t, root, "v/deep/er/file", strings.Repeat("x", 100_000))
	put(t, root, "v/file", strings.Repeat("x", 50_000))
	if err := os.Symlink("/", root+"/v/link"); err != nil {
		t.Fatal(err)
	}
	g := NewGauge()
	r := New(Config{Root: root, Quota: quotas(root, nil), Gauge: g})
	target := Target{Service: "a", Container: idA, Volumes: []Place{{"v", "/v"}, {"w", "/not/there"}}}
	u, err := r.Read(t.Context(), []Target{target})
	if err != nil || !u.Services[0].Volumes[0].Unknown {
		t.Fatalf("%+v, %v", u.Services, err)
	}
	g.round(t.Context(), []string{root + "/not/there", root + "/v"})
	if u, err = r.Read(t.Context(), []Target{target}); err != nil {
		t.Fatal(err)
	}
	if v := u.Services[0].Volumes; v[0].Unknown || v[0].Measured.IsZero() || v[0].Enforced || v[0].Used < 150_000 || v[0].Used > 400_000 || !v[1].Unknown {
		t.Errorf("%+v", v)
	}
}

// machine lays out n containers as a box has them.
func machine(t testing.TB, n int) (string, []Target) {
	t.Helper()
	from := tree(t, "v2.txtar")
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	scope := "sys/fs/cgroup/holdfast.slice/holdfast-critical.slice/docker-" + idA + ".scope"
	var targets []Target
	for i := range n {
		id := fmt.Sprintf("%064x", 0xabc0000+i)
		to := filepath.Join(root, "sys/fs/cgroup/holdfast.slice/holdfast-normal.slice/docker-"+id+".scope")
		if err := os.CopyFS(to, os.DirFS(filepath.Join(from, scope))); err != nil {
			t.Fatal(err)
		}
		targets = append(targets, Target{Service: fmt.Sprintf("s%d", i), Container: id, Volumes: []Place{{"v", "/v"}}})
	}
	return root, targets
}

// TestAllocations: a read opens what it has to and walks nothing.
func TestAllocations(t *testing.T) {
	root, targets := machine(t, 50)
	r := New(Config{Root: root, Quota: quotas(root, nil)})
	if _, err := r.Read(t.Context(), targets); err != nil {
		t.Fatal(err)
	}
	per := testing.AllocsPerRun(5, func() {
		if u, err := r.Read(t.Context(), targets); err != nil || len(u.Services) != 50 {
			t.Error(len(u.Services), err)
		}
	})
	if per > 2000 {
		t.Errorf("%v allocations for 50 containers", per)
	}
}

func BenchmarkRead50(b *testing.B) {
	root, targets := machine(b, 50)
	r := New(Config{Root: root})
	for b.Loop() {
		if _, err := r.Read(b.Context(), targets); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHost reads the containers that run on this machine.
func BenchmarkHost(b *testing.B) {
	var targets []Target
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error { // none found is said below
		if err == nil && d.IsDir() {
			id := strings.TrimSuffix(strings.TrimPrefix(d.Name(), "docker-"), ".scope")
			if len(id) == 64 && validID(id) && !slices.ContainsFunc(targets, func(t Target) bool { return t.Container == id }) {
				targets = append(targets, Target{Service: id[:12], Container: id})
			}
		}
		return nil
	})
	if len(targets) == 0 {
		b.Skip("no containers run here")
	}
	r := New(Config{})
	for b.Loop() {
		if _, err := r.Read(b.Context(), targets); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(targets)), "containers")
}
