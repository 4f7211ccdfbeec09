// SPDX-License-Identifier: Apache-2.0

// Package archtest holds the house rules that a machine can check: who may
// import whom (contract C1 of the design), where processes may be started,
// and what every Go file must look like. It reads the source tree, all build
// tags alike, and refuses nothing by itself: Check returns what it found and
// the test fails on it.
package archtest

import (
	"fmt"
	"strings"
)

// Module is the path of our own module; imports below it are judged by C1.
const Module = "github.com/holdfast/holdfast"

// areas are the top-level folders that may hold Go code. The list is fixed by
// the design: a new one needs a decision, not a file.
var areas = []string{"appliance", "builder", "compose", "images", "monitoring", "qa"}

// edge says that packages in area from may import our packages under to.
type edge struct{ from, to string }

// allowed is contract C1: data flows left to right, imports point right to
// left. An edge that is not here is forbidden, for the reason forbidden gives.
var allowed = map[edge]bool{
	{"compose", "compose"}:          true,
	{"images", "images"}:            true,
	{"builder", "builder"}:          true,
	{"builder", "compose"}:          true,
	{"builder", "images"}:           true,
	{"appliance", "appliance"}:      true,
	{"appliance", "compose"}:        true,
	{"appliance", "images"}:         true,
	{"monitoring", "monitoring"}:    true,
	{"monitoring", "appliance"}:     true, // narrowed to appliance/status in judge
	{"builder/cmd", "appliance"}:    true,
	{"builder/cmd", "builder"}:      true,
	{"builder/cmd", "compose"}:      true,
	{"builder/cmd", "images"}:       true,
	{"builder/cmd", "monitoring"}:   true,
	{"appliance/cmd", "appliance"}:  true,
	{"appliance/cmd", "builder"}:    true,
	{"appliance/cmd", "compose"}:    true,
	{"appliance/cmd", "images"}:     true,
	{"appliance/cmd", "monitoring"}: true,
	{"qa", "appliance"}:             true,
	{"qa", "builder"}:               true,
	{"qa", "compose"}:               true,
	{"qa", "images"}:                true,
	{"qa", "monitoring"}:            true,
	{"qa", "qa"}:                    true,
}

// forbidden gives the reason for each edge C1 closes, in words that tell the
// author what to do instead.
var forbidden = map[edge]string{
	{"compose", "images"}:       "a stack knows nothing of disks: let the caller pass bytes or an io.Writer",
	{"compose", "builder"}:      "a stack is read before anything is built: builder imports compose",
	{"compose", "appliance"}:    "the vendor's side reads stacks too, without a box: appliance imports compose",
	{"compose", "monitoring"}:   "what runs does not know who watches it",
	{"images", "compose"}:       "the bytes of a disk mean the same whatever runs on it: pass plain values in",
	{"images", "builder"}:       "formats are leaves: builder imports images",
	{"images", "appliance"}:     "formats are leaves: appliance imports images",
	{"images", "monitoring"}:    "formats are leaves",
	{"builder", "appliance"}:    "main hands the builder what enters the root (builder.OS), so a bake never depends on box code",
	{"builder", "monitoring"}:   "main hands the builder what enters the root (builder.OS)",
	{"appliance", "builder"}:    "nothing of the bake may be linked into the box: share the leaf (compose/release, images/layout) instead",
	{"appliance", "monitoring"}: "the exporter declares its own Source; cmd/holdfast joins the two",
	{"monitoring", "builder"}:   "monitoring sees a box only through appliance/status",
	{"monitoring", "compose"}:   "monitoring sees a box only through appliance/status",
	{"monitoring", "images"}:    "monitoring sees a box only through appliance/status",
}

// leaves import nothing of ours at all, because both sides of C1 hang on them.
var leaves = map[string]string{
	"appliance/status": "monitoring imports it, so whatever it imported would be monitoring's too",
	"images/durable":   "every writer of state on disk imports it",
}

// judge says why importing package to (path below the module) from package
// from is forbidden, or "" when it is allowed.
func judge(from, to string) string {
	if inCmd(to) {
		return "a program only wires; move what you need into a package beside it"
	}
	if area(to) == "qa" && area(from) != "qa" {
		return "qa checks the whole and is imported by nothing"
	}
	if why := leaves[from]; why != "" {
		return from + " is a leaf: " + why
	}
	e := edge{area(from), area(to)}
	if inCmd(from) {
		e.from += "/cmd"
	}
	if e.from == "monitoring" && e.to == "appliance" && to != "appliance/status" {
		return "monitoring sees a box only through appliance/status"
	}
	if allowed[e] {
		return ""
	}
	if why := forbidden[e]; why != "" {
		return why
	}
	return fmt.Sprintf("contract C1 has no edge from %s to %s", e.from, e.to)
}

// confined are modules of others that only some folders may import, so that
// the reader knows the one place where each outside world begins.
var confined = []struct {
	prefix string
	in     []string
	why    string
}{
	{"github.com/moby/moby/client", []string{"appliance/engine", "qa"},
		"appliance/engine is the only Docker client"},
	{"github.com/hashicorp/packer-plugin-sdk", []string{"builder/packerplugin", "builder/cmd", "qa"},
		"the Packer plugin is a thin adapter over builder"},
	{"github.com/google/go-containerregistry/pkg/v1/remote", []string{"compose/lock", "qa"},
		"compose/lock is the only place that asks a registry"},
	{"google.golang.org/api", []string{"builder/target/gce", "qa"},
		"builder/target/gce is the only client of Google Cloud"},
	{"github.com/aws/aws-sdk-go-v2", []string{"builder/target/ami", "qa"},
		"builder/target/ami is the only client of AWS"},
	{"github.com/prometheus", []string{"appliance/exporter", "qa"},
		"appliance/exporter is the only place that names metrics"},
	{"github.com/spf13/viper", []string{"appliance/config", "qa"},
		"appliance/config is the one schema of a box"},
	{"github.com/spf13/cobra", []string{"builder/cmd", "appliance/cmd", "appliance/cli", "qa"},
		"command lines live with the programs"},
}

// judgeOutside says why a package of another module may not be imported here.
func judgeOutside(from, path string) string {
	for _, c := range confined {
		if !within(path, c.prefix) {
			continue
		}
		for _, dir := range c.in {
			if within(from, dir) {
				return ""
			}
		}
		return c.why
	}
	return ""
}

// execFiles may start processes, each for the reason given; elsewhere a
// package takes what it needs as an interface. So what the project runs can be
// read in one sitting.
var execFiles = map[string]string{
	"appliance/firstboot/exec.go":           "disk tools of the box, in the order of the first boot",
	"builder/debian/exec.go":                "mmdebstrap and apt-get on the host",
	"builder/launch/exec.go":                "QEMU for `make run`",
	"builder/sandbox/sandbox.go":            "enters a root folder: ourselves again in new namespaces",
	"builder/sandbox/child.go":              "the far side of that: the program inside",
	"builder/setup/exec.go":                 "go, packer and apt-get for `make`",
	"builder/stackimage/exec.go":            "go for the demo's programs",
	"compose/stacks/demo/pginit/cluster.go": "initdb and psql, inside the database's image",
	"compose/stacks/demo/pginit/main.go":    "becomes postgres, inside the database's image",
	"compose/trust/exec.go":                 "the vendor's own program that signs metadata",
	"images/internal/foreign/foreign.go":    "the reference tools that tests hold our formats against",
}

// execDirs may start processes in any file: tests of the whole and programs.
var execDirs = []string{"qa"}

// mayExec says whether a file (path below the root of the tree) may import
// os/exec or start a process in another way. Test files may: they start the
// very program they test.
func mayExec(file string) bool {
	if execFiles[file] != "" || strings.HasSuffix(file, "_test.go") {
		return true
	}
	for _, dir := range execDirs {
		if within(file, dir) {
			return true
		}
	}
	return false
}

func area(pkg string) string {
	top, _, _ := strings.Cut(pkg, "/")
	return top
}

// inCmd is true for programs: AREA/cmd/NAME and below.
func inCmd(pkg string) bool {
	parts := strings.Split(pkg, "/")
	return len(parts) >= 2 && parts[1] == "cmd"
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}
