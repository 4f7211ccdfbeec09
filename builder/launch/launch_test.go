// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/builder"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestQEMUArgs(t *testing.T) {
	args := qemuArgs(machine{tree: "/tree", overlay: "/run/a,b/disk.qcow2", vars: "/run/vars.fd", cpus: 2, memory: 2048, port: 8080})
	args = append(append(args, ""), overlayArgs("/tree", "/dist/disk.raw", "/run/disk.qcow2", 8<<30)...)
	got := strings.Join(args, "\n") + "\n"
	golden := filepath.Join("testdata", "qemu.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestHasKVM(t *testing.T) {
	for cpuinfo, want := range map[string]bool{
		"processor\t: 0\nflags\t\t: fpu vmx sse\n": true,
		"flags\t\t: fpu svm\n":                     true,
		"flags\t\t: fpu hypervisor\n":              false,
		"vmx flags\t: ept\nflags\t\t: fpu\n":       false,
		"model name\t: svm vmx\n":                  false,
		"":                                         false,
	} {
		if got := hasKVM(cpuinfo); got != want {
			t.Errorf("hasKVM(%q) = %v", cpuinfo, got)
		}
	}
}

func TestConsole(t *testing.T) {
	var log, show strings.Builder
	c := &console{log: &log, show: &show}
	fmt.Fprint(c, "\x1b[2J\x1b[01;32mBdsDxe: starting\x1b[0m\r\n[  1.0] systemd[1]: Started x\r\n[   12.5] holdf")
	fmt.Fprint(c, "ast[315]: holdfast: loading image 1 of 3\r\n[  OK  ] Started holdfast.service.\r\n")
	fmt.Fprint(c, "[\x1b[0;1;38:5:185mFAILED\x1b[0m] x\r\n[FAILED] x\n")
	fmt.Fprint(c, strings.Repeat("#", 20<<10)+"\nlast\n")
	if got := show.String(); got != "  holdfast: loading image 1 of 3\n  [FAILED] x\n" {
		t.Errorf("shown: %q", got)
	}
	if tail := c.tail(); !strings.HasPrefix(tail, "BdsDxe: starting\n") || !strings.HasSuffix(tail, "\nlast") {
		t.Errorf("tail: %.80q", tail)
	}
	if !strings.Contains(log.String(), "\x1b[2J") {
		t.Error("the log is not what the box said")
	}
}

// bakeAt makes an output folder as far as launch looks at it.
func bakeAt(t *testing.T, dist, hash string) builder.Manifest {
	t.Helper()
	if err := os.MkdirAll(dist, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dist, "disk.raw"), []byte(hash), 0o644); err != nil {
		t.Fatal(err)
	}
	return builder.Manifest{Name: "demo", Version: "1.0.0", Files: []builder.ManifestFile{{Name: "disk.raw", SHA256: hash}}}
}

// treeWith is a tools tree whose loader writes the file that qemu-img would.
func treeWith(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	for name, text := range map[string]string{
		"usr/share/OVMF/OVMF_VARS_4M.fd": "vars",
		// $1 to $3 are the loader's own, $4 on the arguments of qemu-img.
		"lib64/ld-linux-x86-64.so.2": "#!/bin/sh\necho made > \"${12}\"\n",
	} {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func TestStateIsBoundToTheDisk(t *testing.T) {
	dist, state := filepath.Join(t.TempDir(), "demo"), t.TempDir()
	var out strings.Builder
	o := Options{Dist: dist, Tree: treeWith(t), State: state, DiskSize: 8 << 30, Out: &out}
	o.Manifest = bakeAt(t, dist, strings.Repeat("a", 64))
	open := func() *box {
		t.Helper()
		b, err := prepare(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := open()
	if _, err := prepare(t.Context(), o); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("two runs of one box: %v", err)
	}
	if err := os.WriteFile(first.overlay, []byte("written by the box"), 0o644); err != nil {
		t.Fatal(err)
	}
	first.unlock()
	second := open()
	if data, _ := os.ReadFile(second.overlay); string(data) != "written by the box" {
		t.Errorf("the state did not survive: %q", data)
	}
	second.unlock()
	o.Fresh = true
	third := open()
	if data, _ := os.ReadFile(third.overlay); string(data) != "made\n" {
		t.Errorf("--fresh kept the state: %q", data)
	}
	third.unlock()
	o.Fresh = false
	o.Manifest = bakeAt(t, dist, strings.Repeat("b", 64))
	fourth := open()
	defer fourth.unlock()
	if fourth.dir == third.dir {
		t.Error("another disk has the same state")
	}
	if _, err := os.Stat(third.dir); err == nil || !strings.Contains(out.String(), "baked anew") {
		t.Errorf("the state of a disk that is gone is still there, said %q", out.String())
	}
}

func TestPrepareRefuses(t *testing.T) {
	o := Options{Dist: t.TempDir(), State: t.TempDir()}
	if _, err := prepare(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no disk to boot") {
		t.Errorf("no disk: %v", err)
	}
	o.Manifest = bakeAt(t, o.Dist, "../../x")
	if _, err := prepare(t.Context(), o); err == nil || !strings.Contains(err.Error(), "bake it again") {
		t.Errorf("a bad hash: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := portFree(l.Addr().(*net.TCPAddr).Port); err == nil || !strings.Contains(err.Error(), "--port") {
		t.Errorf("got %v", err)
	}
}

func TestAnswers(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	if !answers(t.Context(), s.Listener.Addr().(*net.TCPAddr).Port) {
		t.Error("an answer was not taken for one")
	}
}
