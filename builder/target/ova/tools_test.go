// SPDX-License-Identifier: Apache-2.0

//go:build engine

package ova

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/images/ova"
)

// peers is the folder of vSphere's command line and simulator.
func peers(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("HOLDFAST_PEERS")
	if dir == "" {
		t.Fatal("HOLDFAST_PEERS is not set: run make test-engine")
	}
	return dir
}

// vsphere starts the simulator and returns a function that runs govc on it.
func vsphere(t *testing.T) func(args ...string) string {
	t.Helper()
	sim := exec.CommandContext(t.Context(), filepath.Join(peers(t), "vcsim"))
	stdin, err := sim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := sim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	sim.Stderr = os.Stderr
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		sim.Wait()
	})
	// It prints its address when it serves, or ends.
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("vcsim ends without an address: %v", err)
	}
	return func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(peers(t), "govc"), args...)
		cmd.Env = append(os.Environ(), "GOVC_URL="+strings.TrimSpace(url), "GOVC_INSECURE=1",
			"GOVC_DATASTORE=LocalDS_0", "GOVC_RESOURCE_POOL=/DC0/host/DC0_H0/Resources")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("govc %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
}

// The OVA imports at the first try, and the machine has the devices, the memory,
// the processors and the disk that the options say.
func TestForeignImport(t *testing.T) {
	dir := t.TempDir()
	output(t, dir, 8*mib)
	r, err := Make(t.Context(), dir, Options{Networks: []string{"VM Network", "DC0_DVPG0"}}, &lines{})
	if err != nil {
		t.Fatal(err)
	}
	govc := vsphere(t)
	if spec := govc("import.spec", r.Path); !strings.Contains(spec, `"Key": "holdfast.ssh_keys"`) {
		t.Errorf("govc does not ask for our properties: %s", spec)
	}
	govc("import.ova", "-name", "box", r.Path)
	devices := govc("device.ls", "-vm", "box")
	for name, n := range map[string]int{"ParaVirtualSCSIController": 1, "VirtualVmxnet3": 2, "VirtualDisk": 1, "VirtualCdrom": 1, "20,971,520 KB": 1} {
		if got := strings.Count(devices, name); got != n {
			t.Errorf("%d of %s, want %d:\n%s", got, name, n, devices)
		}
	}
	var info struct {
		VirtualMachines []struct {
			Config struct {
				Version, GuestID string
				Hardware         struct{ NumCPU, MemoryMB int }
			}
		}
	}
	if err := json.Unmarshal([]byte(govc("vm.info", "-json", "box")), &info); err != nil {
		t.Fatal(err)
	}
	c := info.VirtualMachines[0].Config
	if c.Hardware.NumCPU != 2 || c.Hardware.MemoryMB != 4096 || c.Version != "vmx-17" || c.GuestID != "other4xLinux64Guest" {
		t.Errorf("%+v", c)
	}
}

// A full disk is one error that says so, and leaves nothing.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts a small file system and needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1536k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	output(t, dir, 8*mib)
	before := list(t, dir)
	_, err := Make(t.Context(), dir, Options{}, &lines{})
	if err == nil || !strings.Contains(err.Error(), "the disk is full; free some room") {
		t.Errorf("got %v", err)
	}
	if after := list(t, dir); after != before {
		t.Errorf("the folder holds %s, held %s", after, before)
	}
}

// qemu-img sees in the OVA's disk what is in disk.raw.
func TestForeignDisk(t *testing.T) {
	dir := t.TempDir()
	output(t, dir, 8*mib)
	r, err := Make(t.Context(), dir, Options{DiskSize: 9 * mib}, &lines{})
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "disk.vmdk")
	if err := ova.ExtractDisk(t.Context(), r.Path, disk); err != nil {
		t.Fatal(err)
	}
	out := qemuImg(t, "compare", "-f", "raw", "-F", "vmdk", filepath.Join(dir, "disk.raw"), disk)
	if !strings.Contains(out, "Images are identical.") {
		t.Errorf("qemu-img compare: %s", out)
	}
}

// qemuImg runs the tools tree's by its own loader.
func qemuImg(t *testing.T, args ...string) string {
	t.Helper()
	tree := os.Getenv("HOLDFAST_TOOLS")
	if tree == "" {
		t.Fatal("HOLDFAST_TOOLS is not set: run make test-engine")
	}
	lib := filepath.Join(tree, "usr/lib/x86_64-linux-gnu")
	cmd := exec.CommandContext(t.Context(), filepath.Join(lib, "ld-linux-x86-64.so.2"),
		append([]string{"--library-path", lib, filepath.Join(tree, "usr/bin/qemu-img")}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
