// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options of one machine.
type Options struct {
	Tree *Tree
	// Disk is the overlay made by Overlay; a second machine on the same
	// overlay is the same box started again.
	Disk string
	// Vars is the firmware's variable store made by Vars.
	Vars string
	// SecureBoot chooses the firmware that checks signatures.
	SecureBoot bool
	// Once ends the machine where it would reboot, so that a wait for the
	// console ends when the boot has failed.
	Once bool
	// Cmdline is added to the kernel command line by systemd-stub, which obeys
	// only where Secure Boot is off.
	Cmdline string
	// Log gets each byte of the serial console.
	Log io.Writer
	// MemoryMiB and CPUs are 2048 and 2 when 0.
	MemoryMiB, CPUs int
	// Forward are TCP ports of the guest that get an address on this host.
	Forward []int
	// Record, when not empty, is an empty file that gets every write, flush and
	// discard of the system disk in order, in the format of the kernel's
	// dm-log-writes: what a power cut may leave can be made from it.
	Record string
	// DiskBus is how the system disk is attached, "" for virtio-blk; "pvscsi"
	// is vSphere's, "nvme" EC2's, "virtio-scsi" Google's.
	DiskBus string
	// BootDisk is what the firmware starts from in place of Disk, see BootDisk.
	BootDisk string
	// NIC is the model of the network card, "" for virtio-net-pci.
	NIC string
	// Disks are more disks, attached beside the system disk.
	Disks []ExtraDisk
	// System is how the machine names itself in its SMBIOS tables.
	System System
	// Credentials are systemd credentials by name, passed by SMBIOS.
	Credentials map[string]string
	// Metadata, when not empty, is a program with its arguments that serves
	// one connection to 169.254.169.254 port 80 on its standard input and
	// output; the guest's network then is 169.254.0.0/16.
	Metadata string
}

// Machine is one running QEMU.
type Machine struct {
	Console *Console
	Shell   *Shell
	QMP     *QMP
	pid     int
	addr    map[int]string
	exited  chan struct{}
	waitErr error
}

// args is QEMU's command line; fd 3 is QMP, fd 4 the root shell.
func args(o Options) []string {
	t := o.Tree
	code, smm := "OVMF_CODE_4M.fd", "off"
	if o.SecureBoot {
		code, smm = "OVMF_CODE_4M.secboot.fd", "on"
	}
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo") // unreadable means no acceleration
	forward := "user,id=net0"
	if o.Metadata != "" {
		forward += ",net=169.254.0.0/16,guestfwd=tcp:169.254.169.254:80-cmd:" + comma(o.Metadata)
	}
	for _, port := range o.Forward {
		forward += ",hostfwd=tcp:127.0.0.1:0-:" + strconv.Itoa(port)
	}
	list := []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-L", t.path("usr/share/qemu"), "-L", t.path("usr/share/seabios"),
		"-machine", "q35,smm=" + smm, "-accel", accel(string(cpuinfo)), "-cpu", "max",
		"-m", strconv.Itoa(cmp.Or(o.MemoryMiB, 2048)), "-smp", strconv.Itoa(cmp.Or(o.CPUs, 2)),
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + t.path("usr/share/OVMF/"+code),
		"-drive", "if=pflash,unit=1,format=raw,file=" + o.Vars,
		"-netdev", forward, "-device", cmp.Or(o.NIC, "virtio-net-pci") + ",netdev=net0,mac=52:54:00:48:46:01,romfile=",
		"-device", "i6300esb", "-device", "virtio-rng-pci",
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=shell,fd=4", "-device", "virtio-serial-pci",
		"-device", "virtserialport,chardev=shell,name=" + shellPort,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
	}
	list = append(list, o.disks()...)
	list = append(list, o.System.smbios()...)
	list = append(list, o.credentials()...)
	if o.SecureBoot {
		list = append(list, "-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	if o.Once {
		list = append(list, "-no-reboot")
	}
	for _, c := range shellCredentials() {
		list = append(list, "-smbios", "type=11,value="+c)
	}
	if o.Cmdline != "" {
		list = append(list, "-smbios", "type=11,value=io.systemd.stub.kernel-cmdline-extra="+comma(o.Cmdline))
	}
	return list
}

// Start runs a machine until it powers off, is killed, or ctx ends.
func Start(ctx context.Context, o Options) (m *Machine, err error) {
	qmpHere, qmpThere, err := socketPair("qmp")
	if err != nil {
		return nil, err
	}
	defer qmpThere.Close()
	shellHere, shellThere, err := socketPair("shell")
	if err != nil {
		qmpHere.Close()
		return nil, err
	}
	defer shellThere.Close()
	defer func() {
		if err != nil {
			qmpHere.Close()
			shellHere.Close()
		}
	}()
	argv := o.Tree.argv("qemu-system-x86_64", args(o)...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = o.Tree.env()
	cmd.ExtraFiles = []*os.File{qmpThere, shellThere}
	// QEMU dies with this process, also when a test binary is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var said tailBuffer
	cmd.Stderr = &said
	m = &Machine{Console: newConsole(), addr: map[int]string{}, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Pdeathsig means the death of the thread that started the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		m.pid = cmd.Process.Pid
		started <- nil
		m.Console.read(out, o.Log)
		if err := cmd.Wait(); err != nil {
			m.waitErr = fmt.Errorf("QEMU: %w: %s", err, said.String())
		}
		close(m.exited)
		qmpHere.Close()
		shellHere.Close()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	qmpThere.Close()
	shellThere.Close()
	m.Shell = newShell(shellHere)
	if m.QMP, err = openQMP(ctx, qmpHere); err == nil {
		err = m.readForwards(ctx)
	}
	if err != nil {
		m.Kill()
		return nil, errors.Join(err, m.waitErr)
	}
	return m, nil
}

// readForwards asks QEMU which host ports it chose.
func (m *Machine) readForwards(ctx context.Context) error {
	out, err := m.QMP.Monitor(ctx, "info usernet")
	if err != nil {
		return err
	}
	// Protocol[State] FD Source-Address Port Dest-Address Port
	for _, f := range regexp.MustCompile(`TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)`).FindAllStringSubmatch(out, -1) {
		guest, err := strconv.Atoi(f[2])
		if err != nil {
			return err
		}
		m.addr[guest] = "127.0.0.1:" + f[1]
	}
	return nil
}

// Addr is the host's address of a forwarded guest port.
func (m *Machine) Addr(port int) string { return m.addr[port] }

// PID of QEMU.
func (m *Machine) PID() int { return m.pid }

// Kill ends QEMU at once, as lost power would, and waits until it is gone.
func (m *Machine) Kill() {
	select {
	case <-m.exited:
		return
	default:
	}
	_ = unix.Kill(m.pid, unix.SIGKILL) // gone already is as good
	<-m.exited
}

// Exited is closed when QEMU has ended.
func (m *Machine) Exited() <-chan struct{} { return m.exited }

// WaitExit waits for the machine to power off by itself.
func (m *Machine) WaitExit(ctx context.Context) error {
	select {
	case <-m.exited:
		return m.waitErr
	case <-ctx.Done():
		return fmt.Errorf("waiting for the machine to power off: %w; its console last said:\n%s", context.Cause(ctx), tail(m.Console.Text(), 25))
	}
}

// FlipByte inverts the bits of one byte of the running machine's disk, below
// everything the guest could have cached. The byte must be one that nobody
// writes: its old value is taken from the image.
func (m *Machine) FlipByte(ctx context.Context, img *Image, offset int64) error {
	f, err := os.Open(img.Disk())
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		return err
	}
	mark := m.Console.Mark()
	if _, err := m.QMP.Monitor(ctx, fmt.Sprintf(`qemu-io disk0 "write -P %d %d 1"`, ^b[0], offset)); err != nil {
		return err
	}
	// This monitor command answers on QEMU's standard output, where the
	// console is.
	_, err = m.Console.WaitAfter(ctx, mark, fmt.Sprintf(`wrote 1/1 bytes at offset %d`, offset))
	return err
}

// parseRead takes the byte out of qemu-io's "00001000:  68  h".
func parseRead(out string) (byte, error) {
	f := regexp.MustCompile(`(?m)^[0-9a-f]{8,}:\s+([0-9a-f]{2})\s`).FindStringSubmatch(out)
	if f == nil {
		return 0, fmt.Errorf("qemu-io read: no byte in %q", out)
	}
	b, err := strconv.ParseUint(f[1], 16, 8)
	return byte(b), err
}

// FlipAt inverts one byte of an overlay that no machine uses.
func FlipAt(ctx context.Context, t *Tree, disk string, offset int64) error {
	out, err := t.run(ctx, "qemu-io", "-r", "-f", "qcow2", "-c", fmt.Sprintf("read -v %d 1", offset), disk)
	if err != nil {
		return err
	}
	b, err := parseRead(out)
	if err != nil {
		return err
	}
	_, err = t.run(ctx, "qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write -P %d %d 1", ^b, offset), disk)
	return err
}

// socketPair is a connection whose far end a child inherits.
func socketPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	here, there := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name+" of QEMU")
	defer here.Close() // FileConn takes a copy
	conn, err := net.FileConn(here)
	if err != nil {
		there.Close()
		return nil, nil, err
	}
	return conn, there, nil
}

// tailBuffer keeps the last words of a child.
type tailBuffer struct{ b []byte }

func (t *tailBuffer) Write(p []byte) (int, error) {
	const keep = 16 << 10
	t.b = append(t.b, p...)
	if len(t.b) > keep {
		t.b = t.b[len(t.b)-keep:]
	}
	return len(p), nil
}

func (t *tailBuffer) String() string { return string(t.b) }
