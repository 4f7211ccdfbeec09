// SPDX-License-Identifier: Apache-2.0

package upgrade

import "github.com/holdfast/holdfast/compose/release"

// gate of the test releases: a virtual machine without virtualisation in
// hardware boots to healthy in a minute or two.
var gate = release.Gate{Deadline: 600, Window: 10}

// hopeless is the gate of those that never get healthy: each test waits for
// all of it, and a healthy one would be healthy by then.
var hopeless = release.Gate{Deadline: 150, Window: 10}

// environment sets variables of web, or of migrate where the anchor is its.
func environment(anchor, values string) Edit {
	return Edit{"compose.yaml", anchor, anchor + "    environment: {" + values + "}\n"}
}

// Anchors in the demo's Compose file.
const (
	serveLine   = "    command: [serve]\n"
	migrateLine = "    command: [migrate]\n"
	edgeAwaits  = "      web: {condition: service_healthy}\n"
	edgeGoesOn  = "      web: {condition: service_started}\n"
)

// The test releases. Base is what boxes begin with.
var (
	Base = Spec{Version: "1.0.0", Demo: "1.0.0", Gate: gate}
	// Next is a good one with another root and another schema.
	Next = Spec{Version: "1.1.0", Demo: "1.1.0", Variant: "1.1.0", Gate: gate}
	// StackOnly has Base's root.
	StackOnly = Spec{Version: "1.0.1", Demo: "1.0.0", Gate: gate}
	// Unhealthy has Base's root. Its migration works, its web answers and is
	// never healthy, and edge serves it all the same: only a closed ingress
	// keeps clients out.
	Unhealthy = Spec{Version: "1.1.1", Demo: "1.1.0", Gate: hopeless, Edits: []Edit{
		environment(serveLine, `FAIL_HEALTH: "1"`), {"compose.yaml", edgeAwaits, edgeGoesOn},
	}}
	// Panic has a kernel that finds neither its initrd's program nor a root.
	Panic = Spec{Version: "1.2.0", Demo: "1.1.0", Variant: "1.2.0", Gate: gate, Cmdline: []string{"rdinit=/none"}}
	// Hang has a root whose first program does nothing.
	Hang = Spec{Version: "1.2.1", Demo: "1.1.0", Variant: "1.2.1", Gate: gate, Cmdline: []string{"init=/usr/bin/holdfast-test-hang"},
		Files: map[string]string{"usr/bin/holdfast-test-hang": hang}}
	// CrashLoop has a supervisor that ends at once, each time.
	CrashLoop = Spec{Version: "1.2.2", Demo: "1.1.0", Variant: "1.2.2", Gate: hopeless, Files: map[string]string{
		"usr/lib/systemd/system/holdfast.service.d/90-test.conf": "[Service]\nExecStart=\nExecStart=/usr/bin/false\n"}}
	// NoState does not mount the state volume.
	NoState = Spec{Version: "1.2.3", Demo: "1.1.0", Variant: "1.2.3", Gate: gate, Files: map[string]string{
		"usr/lib/systemd/system/var.mount.d/90-test.conf": "[Mount]\nWhat=/dev/null\n"}}
	// NoMigration has Base's root; its migration fails before its commit.
	NoMigration = Spec{Version: "1.2.4", Demo: "1.1.0", Gate: hopeless, Edits: []Edit{
		environment(migrateLine, `MIGRATE_FAIL: "1"`)}}
	// AppFails has another root; its migration works, its web does not.
	AppFails = Spec{Version: "1.2.5", Demo: "1.1.0", Variant: "1.2.5", Gate: hopeless, Edits: []Edit{
		environment(serveLine, `FAIL_HEALTH: "1"`)}}
	// Docker says that its engine is another one.
	Docker = Spec{Version: "1.3.0", Demo: "1.1.0", Variant: "1.3.0", Gate: gate, Engine: "docker-of-1.3.0"}
	// DockerFails is Docker with a web that is never healthy.
	DockerFails = Spec{Version: "1.3.1", Demo: "1.1.0", Variant: "1.3.1", Gate: hopeless, Engine: Docker.Engine, Edits: AppFails.Edits}
	// Anonymous has Base's root and an anonymous volume, AnonymousFails too.
	Anonymous      = Spec{Version: "1.4.0", Demo: "1.0.0", Gate: gate, Edits: []Edit{anonymous}}
	AnonymousFails = Spec{Version: "1.4.1", Demo: "1.1.0", Gate: hopeless, Edits: []Edit{
		{"compose.yaml", serveLine, anonymous.New + "    environment: {FAIL_HEALTH: \"1\"}\n"}}}
)

var anonymous = Edit{"compose.yaml", serveLine, serveLine + "    volumes: [/scratch]\n"}

// Quick are the releases of `make test`, in the order in which they are used;
// Soak the rest.
var (
	Quick = []Spec{Base, Next, StackOnly, Unhealthy, Panic}
	Soak  = []Spec{Hang, CrashLoop, NoState, NoMigration, AppFails, Docker, DockerFails, Anonymous, AnonymousFails}
)

// hang is an x86-64 program that waits for signals for ever: an ELF header, one
// program header, and `mov $34,%eax; syscall; jmp` back.
var hang = string([]byte{
	0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	2, 0, 62, 0, 1, 0, 0, 0,
	0x78, 0, 0x40, 0, 0, 0, 0, 0, // entry: 0x400078
	0x40, 0, 0, 0, 0, 0, 0, 0, // program headers at 64
	0, 0, 0, 0, 0, 0, 0, 0, // no section headers
	0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0,
	1, 0, 0, 0, 5, 0, 0, 0, // load, readable and executable
	0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0x40, 0, 0, 0, 0, 0,
	0, 0, 0x40, 0, 0, 0, 0, 0,
	0x81, 0, 0, 0, 0, 0, 0, 0, // 129 bytes
	0x81, 0, 0, 0, 0, 0, 0, 0,
	0, 0x10, 0, 0, 0, 0, 0, 0,
	0xb8, 34, 0, 0, 0, // pause
	0x0f, 0x05,
	0xeb, 0xf7, // again
})
