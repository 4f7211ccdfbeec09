// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fidelityCases are the cases of qa/fidelity that a kernel with cgroup 2 or
// another version of the engine could answer differently. The soak runs all.
const fidelityCases = "minimal|processors|memory|deploy-resources|reserved-processors|ulimits|sysctls|block-io|devices|" +
	"capabilities|security-options|host-namespaces|volumes|configs|secrets|networks|healthcheck|run-minimal"

// checkFidelity holds containers against docker compose on the box's own
// engine, with the very tests that run against one on the host.
func checkFidelity(b *box) {
	b.t.Helper()
	peers := cmp.Or(os.Getenv("HOLDFAST_PEERS"), "../../build/peers")
	plugin := filepath.Join(peers, "docker-compose")
	if _, err := os.Stat(plugin); err != nil {
		b.t.Fatalf("%v: run make peers", err)
	}
	for path, file := range map[string]string{
		"/var/tmp/fidelity.test":  testBinary(b.t, "./qa/fidelity", "engine"),
		"/var/tmp/standin":        staticProgram(b.t, "./qa/standin"),
		"/var/tmp/docker-compose": plugin,
	} {
		b.give(file, path)
	}
	part := strings.Split(fidelityCases, "|")
	if soak {
		files, err := filepath.Glob("../fidelity/testdata/*.yaml")
		if err != nil {
			b.t.Fatal(err)
		}
		part = nil
		for _, f := range files {
			part = append(part, strings.TrimSuffix(filepath.Base(f), ".yaml"))
		}
	}
	same, also := 0, "|TestBudget|TestInitContainers"
	for cases := range slices.Chunk(part, 10) { // a command of the box may take as long as a boot
		out, _ := b.try("cd /var/tmp && HOLDFAST_ENGINE=unix:///run/docker.sock HOLDFAST_PEERS=/var/tmp HOLDFAST_STANDIN=/var/tmp/standin" +
			" ./fidelity.test -test.v -test.run '^(TestFiles" + also + ")$/^(" + strings.Join(cases, "|") + ")$' 2>&1 | grep -v '^=== ' | tail -c 30000")
		for _, name := range append(slices.Clone(cases), "") {
			want := "--- PASS: TestFiles/" + name + " "
			if name == "" {
				want = "\nPASS"
			}
			if !strings.Contains(out, want) {
				b.t.Errorf("on the box's engine there is no %q\n%s", want, out)
				break
			}
			also = "" // once is enough
			if name != "" {
				same++
			}
		}
	}
	b.t.Logf("%d cases are the same on the box", same)
	b.run("rm -r /var/tmp/fidelity.test /var/tmp/standin /var/tmp/docker-compose")
}

// TestFidelity is all cases, on a box of its own.
func TestFidelity(t *testing.T) {
	if !soak {
		t.Skip("the soak runs all cases; some run in TestSettings")
	}
	b := newBox(t, "")
	b.start()
	b.complete(0, 1)
	checkHealthy(b)
	checkFidelity(b)
	b.off()
}
