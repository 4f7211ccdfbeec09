// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/stack"
)

// give puts a file of the host into the box at path, executable. The box asks
// for it over its network; it needs no more than bash for that.
func (b *box) give(file, path string) {
	b.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			sent <- err
			return
		}
		defer conn.Close()
		f, err := os.Open(file)
		if err != nil {
			sent <- err
			return
		}
		defer f.Close()
		_, err = io.Copy(conn, f)
		sent <- err
	}()
	port := l.Addr().(*net.TCPAddr).Port
	b.run(fmt.Sprintf("bash -c 'exec 3<>/dev/tcp/10.0.2.2/%d; cat <&3 >%s' && chmod 755 %s", port, path, path))
	if err := <-sent; err != nil {
		b.t.Fatal(err)
	}
}

// testBinary builds a package's tests for the box.
func testBinary(t *testing.T, pkg, tags string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(pkg)+".test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", tags, "-o", file, pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	return file
}

// checkLimits: the box protects its system and its services, and each volume
// and layer has the quota it should; then the tests of quotas and groups
// themselves, which need a kernel like the box's, run in it.
func checkLimits(b *box) {
	group := func(path string) int64 {
		n, err := strconv.ParseInt(b.run("cat /sys/fs/cgroup/"+path), 10, 64)
		if err != nil {
			b.t.Error(err)
		}
		return n
	}
	const mib, page = 1 << 20, 4096
	for path, want := range map[string]int64{
		"system.slice/memory.min": 320 * mib, "system.slice/docker.service/memory.min": 128 * mib, "system.slice/containerd.service/memory.min": 64 * mib,
		"system.slice/holdfast.service/memory.min": 64 * mib, "system.slice/systemd-journald.service/memory.min": 32 * mib, "init.scope/memory.min": 16 * mib,
	} {
		if got := group(path); got != want {
			b.t.Errorf("%s is %d, want %d", path, got, want)
		}
	}
	for unit, most := range map[string]int{"docker": -500, "containerd": -999, "holdfast": -900} {
		score := b.run("cat /proc/$(systemctl show -p MainPID --value " + unit + ")/oom_score_adj")
		if n, err := strconv.Atoi(score); err != nil || n > most {
			b.t.Errorf("%s has the OOM score %s", unit, score)
		}
	}
	// Each slice has what is in it together.
	var kept struct {
		Budget budget.Budget `json:"budget"`
	}
	if err := json.Unmarshal([]byte(b.run("cat /var/lib/holdfast/budget.json")), &kept); err != nil {
		b.t.Fatal(err)
	}
	plan := &kept.Budget
	slice := map[stack.Class]string{stack.Critical: "critical", stack.Normal: "normal", stack.BestEffort: "besteffort"}
	low := map[string]int64{}
	for _, s := range b.report().Services {
		p, ok := plan.Service(s.Name)
		if !ok {
			b.t.Fatalf("no budget for %s", s.Name)
		}
		in := "holdfast.slice/holdfast-" + slice[p.Class] + ".slice/"
		if !p.OneShot {
			low[in] += max(p.MemoryMin, p.MemoryLow)
		}
		if s.State != "running" {
			continue
		}
		scope := in + "docker-" + s.Container + ".scope/"
		for file, want := range map[string]int64{
			"memory.min": p.MemoryMin / page * page, "memory.low": max(p.MemoryMin, p.MemoryLow) / page * page,
			"cpu.weight": int64(p.CPUWeight), "memory.max": p.Limit.Memory / page * page,
		} {
			if got := group(scope + file); got != want {
				b.t.Errorf("%s: %s is %d, its budget says %d", s.Name, file, got, want)
			}
		}
	}
	for in, want := range low {
		if got := group(in + "memory.low"); got != want/page*page {
			b.t.Errorf("%smemory.low is %d, in it are %d", in, got, want)
		}
	}
	for _, file := range []string{"/var/lib/holdfast/ballast", "/var/lib/holdfast/data/ballast"} {
		if kib, err := strconv.Atoi(b.run("du -k " + file + " | cut -f1")); err != nil || kib < 32<<10 {
			b.t.Errorf("%s has %d KiB, %v", file, kib, err)
		}
	}
	for _, path := range []string{"/var/lib/holdfast/data", "/var"} {
		report := b.run("xfs_quota -x -c 'report -p -b -N' " + path)
		b.t.Logf("projects at %s:\n%s", path, report)
		if !strings.Contains(report, "#10485") {
			b.t.Errorf("no projects at %s", path)
		}
	}
	for setting, least := range map[string]int{"vm.max_map_count": 300_000, "fs.inotify.max_user_watches": 128_000} {
		if n, err := strconv.Atoi(b.run("sysctl -n " + setting)); err != nil || n < least {
			b.t.Errorf("%s is %d, %v", setting, n, err)
		}
	}
	b.give(testBinary(b.t, "./appliance/enforce", "engine"), "/var/tmp/enforce.test")
	out := b.run("cd /var/tmp && HOLDFAST_XFS=/var/lib/holdfast/data ./enforce.test -test.v -test.run 'XFS|Overlay|Real' && rm enforce.test")
	if strings.Contains(out, "SKIP") || !strings.Contains(out, "PASS: TestXFS") {
		b.t.Errorf("the box's own tests: %s", out)
	}
}
