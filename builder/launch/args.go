// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"path/filepath"
	"strings"
)

// machine is what one QEMU is made of; all paths are absolute.
type machine struct {
	tree    string // tools tree
	overlay string // qcow2 over disk.raw
	vars    string // this machine's copy of the firmware's variables
	kvm     bool
	cpus    int
	memory  int // MiB
	port    int // on 127.0.0.1, forwarded to port 80 of the box
}

// treeProgram is the command line that runs a program of the tools tree with
// the tree's own loader and libraries. So QEMU sees the host's paths, needs no
// root and no mounts, and is our direct child.
func treeProgram(tree, program string, args ...string) []string {
	return append([]string{
		filepath.Join(tree, "lib64/ld-linux-x86-64.so.2"),
		"--library-path", filepath.Join(tree, "usr/lib/x86_64-linux-gnu"),
		filepath.Join(tree, "usr/bin", program),
	}, args...)
}

// qemuArgs is QEMU's command line. File descriptor 3 is the machine protocol;
// the serial console is standard output.
func qemuArgs(m machine) []string {
	accel := "tcg,thread=multi"
	if m.kvm {
		accel = "kvm"
	}
	return treeProgram(m.tree, "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-display", "none",
		"-L", filepath.Join(m.tree, "usr/share/qemu"), "-L", filepath.Join(m.tree, "usr/share/seabios"),
		"-machine", "q35", "-accel", accel, "-cpu", "max",
		"-smp", fmt.Sprint(m.cpus), "-m", fmt.Sprint(m.memory),
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+comma(filepath.Join(m.tree, "usr/share/OVMF/OVMF_CODE_4M.fd")),
		"-drive", "if=pflash,unit=1,format=raw,file="+comma(m.vars),
		"-drive", "if=none,id=disk,format=qcow2,discard=unmap,file="+comma(m.overlay),
		"-device", "virtio-blk-pci,drive=disk,bootindex=0",
		// Without its option ROM the card does not offer to boot from the
		// network.
		"-netdev", fmt.Sprintf("user,id=net,hostfwd=tcp:127.0.0.1:%d-:80", m.port),
		"-device", "virtio-net-pci,netdev=net,romfile=",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
		"-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial",
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
	)
}

// overlayArgs makes a qcow2 of size bytes over a raw disk, which stays as it
// is.
func overlayArgs(tree, disk, overlay string, size int64) []string {
	return treeProgram(tree, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, overlay, fmt.Sprint(size))
}

// comma doubles commas, which separate options for QEMU.
func comma(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// hasKVM reads /proc/cpuinfo: only a processor with vmx or svm can. A /dev/kvm
// that opens proves nothing: nested hosts offer one that hangs.
func hasKVM(cpuinfo string) bool {
	for line := range strings.Lines(cpuinfo) {
		name, flags, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) != "flags" {
			continue
		}
		for _, flag := range strings.Fields(flags) {
			if flag == "vmx" || flag == "svm" {
				return true
			}
		}
	}
	return false
}
