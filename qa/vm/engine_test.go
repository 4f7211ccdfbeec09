// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// engineTests are those of qa/engine's tests that the box's own engine (its
// version, cgroup 2 and systemd's driver) must pass: what keeps services apart.
var engineTests = []string{"TestBudgets", "TestCrashLoopOfMany"}

// staticProgram builds a command of this module for the box.
func staticProgram(t *testing.T, pkg string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return file
}

// checkEngineTests runs the very tests that run against an engine on the
// host, beside the box's own stack, which must not notice.
func checkEngineTests(b *box) {
	b.t.Helper()
	for path, file := range map[string]string{
		"/var/tmp/engine.test": testBinary(b.t, "./qa/engine", "engine"),
		"/var/tmp/holdfast":    staticProgram(b.t, "./appliance/cmd/holdfast"),
		"/var/tmp/standin":     staticProgram(b.t, "./qa/standin"),
	} {
		b.give(file, path)
	}
	before := b.run(containersNow)
	names, pattern := engineTests, "^("+strings.Join(engineTests, "|")+")$"
	if !soak {
		names, pattern = []string{"TestBudgets"}, "^TestBudgets$/^(memory|forks)$"
		b.t.Log("budgets of files and logs, TestCrashLoopOfMany: left out, make soak runs them")
	}
	out, code := b.try("cd /var/tmp && HOLDFAST_ENGINE=unix:///run/docker.sock HOLDFAST_PROGRAM=/var/tmp/holdfast HOLDFAST_STANDIN=/var/tmp/standin" +
		" ./engine.test -test.v -test.parallel 1 -test.timeout 9m -test.run '" + pattern + "' 2>&1 | tail -c 30000")
	for _, name := range names {
		if !strings.Contains(out, "--- PASS: "+name+" ") {
			b.t.Errorf("%s did not pass on the box", name)
		}
	}
	if b.t.Failed() {
		b.t.Logf("(%d)\n%s", code, out)
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(strings.TrimSpace(line), "--- ") || strings.Contains(line, "_test.go:") {
			b.t.Log(strings.TrimRight(line, "\n"))
		}
	}
	if after := b.run(containersNow); after != before {
		b.t.Errorf("the box's own containers before:\n%s\nafter:\n%s", before, after)
	}
	b.run("rm -r /var/tmp/engine.test /var/tmp/holdfast /var/tmp/standin")
}

// containersNow lists the containers that run, with their start.
const containersNow = `docker ps -q --no-trunc | xargs docker inspect --format '{{.Id}} {{.State.StartedAt}}' | sort`

// checkMended kills dockerd and containerd, then hangs one after the other.
// systemd brings back what was killed, the supervisor what hangs; the
// containers run on, and the supervisor takes them over as they are.
func checkMended(b *box) {
	b.t.Helper()
	type row struct {
		signal string
		units  []string
	}
	rows := []row{{"KILL", []string{"docker", "containerd"}}, {"STOP", []string{"docker"}}, {"STOP", []string{"containerd"}}}
	if !soak {
		b.t.Logf("%v: left out, make soak runs them", rows[1:])
		rows = rows[:1]
	}
	for _, row := range rows {
		before := b.run(containersNow)
		old := map[string]string{}
		for _, unit := range row.units {
			old[unit] = b.run("systemctl show -P MainPID " + unit)
			b.run("kill -" + row.signal + " " + old[unit])
		}
		for _, unit := range row.units {
			// The shell waits for the event; the time is a bound for failures.
			b.run(fmt.Sprintf(`timeout 300 sh -c 'until p=$(systemctl show -P MainPID %[1]s) && [ "$p" != %[2]s ] && [ "$p" != 0 ] && systemctl -q is-active %[1]s; do sleep 1; done'`, unit, old[unit]))
		}
		b.run("timeout 120 docker version > /dev/null && holdfast wait-healthy --timeout 4m")
		if after := b.run(containersNow); after != before {
			b.t.Errorf("SIG%s of %v: containers before:\n%s\nafter:\n%s", row.signal, row.units, before, after)
		}
		if row.signal != "STOP" {
			continue
		}
		// The condition comes with the first answer after the restart.
		b.run(fmt.Sprintf(`timeout 120 sh -c 'until holdfast status --json | grep -q "%s.service did not answer and was restarted"; do sleep 1; done'`, row.units[0]))
	}
}

// checkClock sets the clock years ahead and back again. Nothing that is well
// is touched, and what ends is started again at once all the same.
func checkClock(b *box) {
	b.t.Helper()
	b.run("systemctl stop systemd-timesyncd.service")
	for _, jump := range []string{"+800 days", "-800 days"} {
		b.run("date -s \"$(date -d '" + jump + "')\"")
		victim := b.run(`docker ps -q --no-trunc --filter label=com.docker.compose.service=web`)
		others := `docker ps -q --no-trunc | grep -v ` + victim + ` | xargs docker inspect --format '{{.Id}} {{.State.Pid}}' | sort`
		before, pid := b.run(others), b.run("docker inspect --format '{{.State.Pid}}' "+victim)
		b.run("docker kill " + victim)
		b.run(fmt.Sprintf(`timeout 120 sh -c 'until p=$(docker inspect --format "{{.State.Pid}}" %s) && [ "$p" != %s ] && [ "$p" != 0 ]; do sleep 1; done'`, victim, pid))
		b.run("holdfast wait-healthy --timeout 4m")
		if after := b.run(others); after != before {
			b.t.Errorf("%s: the other containers before:\n%s\nafter:\n%s", jump, before, after)
		}
	}
	b.run("systemctl start systemd-timesyncd.service")
}
