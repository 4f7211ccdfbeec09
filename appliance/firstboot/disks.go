// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

// leastDisk is the smallest disk that becomes the home of data, in bytes:
// below it the shares of a pool are not worth having, and what is that small
// is somebody's configuration drive.
const leastDisk = 1 * gib

// diskShape are the kernel's names of disks that machines have: SCSI and SATA,
// virtio, Xen, NVMe. All else (loop, ram, zram, dm, md, nbd, sr, fd, mmc) is
// never looked at, whatever is on it.
var diskShape = regexp.MustCompile(`^((sd|vd|xvd)[a-z]{1,4}|nvme[0-9]{1,4}n[0-9]{1,4})$`)

// ephemeral are models of disks whose content is gone when the machine is
// stopped: EC2's instance store, GCE's local SSD (NVMe and SCSI, after
// 65-gce-disk-naming.rules of its guest environment), Azure's.
var ephemeral = regexp.MustCompile(`^(Amazon EC2 NVMe Instance Storage|nvme_card[0-9]*|EphemeralDisk|Microsoft NVMe Direct Disk.*)$`)

// Disk is a whole disk other than the system disk.
type Disk struct {
	Device
	// Kernel is its name in /sys, "vdb"; ID its lasting name below /dev/disk,
	// "" where it has none.
	Kernel, ID string
	// Model and Serial as the disk says, "" where it does not.
	Model, Serial string
	ReadOnly      bool
	// Unfit is why it cannot become a home of data whatever is on it, "" for
	// one that can.
	Unfit string
	// Found is what is on it, "" for nothing at all: no signature that blkid
	// knows, no partition, no user, and zeros at both ends.
	Found string
	// Trouble is why LVM could not read the group on it.
	Trouble string
}

// String names a disk for people.
func (d Disk) String() string {
	s := d.Name
	if d.Serial != "" {
		s += fmt.Sprintf(" (serial %s, %s)", d.Serial, size(d.Bytes))
	} else {
		s += fmt.Sprintf(" (%s)", size(d.Bytes))
	}
	return s
}

// key is what an admin writes into data.disk to mean this disk.
func (d Disk) key() string {
	if d.ID != "" {
		return d.ID
	}
	return "(" + d.Name + " has no lasting name: give it a serial number in the hypervisor)"
}

// empty says whether the disk may become a home of data.
func (d Disk) empty() bool { return d.Unfit == "" && d.Found == "" && d.Holds == "" && !d.ReadOnly }

// observeDisks looks at every disk but the root's own. It reads only, and
// activates nothing.
func observeDisks(ctx context.Context, env Env, root slot.Root) ([]Disk, error) {
	entries, err := os.ReadDir(env.path("sys/class/block"))
	if err != nil {
		return nil, err
	}
	mounts, err := readMounts(env.path("proc/self/mountinfo"))
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, m := range mounts {
		used[m.dev] = true
	}
	var out []Disk
	for _, e := range entries {
		kernel := e.Name()
		if !diskShape.MatchString(kernel) || kernel == root.Disk {
			continue
		}
		d, err := observeDisk(ctx, env, kernel, used)
		if errors.Is(err, fs.ErrNotExist) {
			continue // unplugged meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("disk %s: %w", kernel, err)
		}
		out = append(out, d)
	}
	return out, nil
}

func observeDisk(ctx context.Context, env Env, kernel string, used map[string]bool) (Disk, error) {
	dir := filepath.Join("sys/class/block", kernel)
	read := func(name string) string {
		b, _ := os.ReadFile(env.path(filepath.Join(dir, name))) // absent is as good as empty
		return status.Printable(strings.Join(strings.Fields(string(b)), " "))
	}
	d := Disk{Kernel: kernel, Model: read("device/model"), Serial: read("serial"), ReadOnly: read("ro") == "1"}
	if d.Serial == "" {
		d.Serial = read("device/serial")
	}
	d.describe(ctx, env)
	bytes, err := sectors(env, kernel)
	if err != nil {
		return Disk{}, err
	}
	d.Name, d.Bytes = "/dev/"+kernel, bytes
	switch scsi := read("device/type"); {
	case scsi != "" && scsi != "0":
		d.Unfit = "it is no disk but a SCSI device of type " + scsi
	case d.Bytes == 0:
		d.Unfit = "it has no medium"
	case ephemeral.MatchString(d.Model):
		d.Unfit = "it loses its content when the machine is stopped (" + d.Model + ")"
	case read("removable") == "1":
		d.Unfit = "it is removable"
	case d.ReadOnly:
		d.Unfit = "it is read-only"
	case d.Bytes < leastDisk:
		d.Unfit = fmt.Sprintf("it has %s, at least %s are needed", size(d.Bytes), size(leastDisk))
	}
	if d.Bytes == 0 {
		return d, nil
	}
	return d, d.look(ctx, env, dir, used)
}

// look fills in what is on the disk.
func (d *Disk) look(ctx context.Context, env Env, dir string, used map[string]bool) error {
	if d.Found = inUse(env, dir, used); d.Found != "" {
		return nil
	}
	dev, err := observeDevice(ctx, env, d.Kernel, dataGroup)
	dev.Name, dev.Bytes = d.Name, d.Bytes
	d.Device = dev
	if errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
		return err
	}
	if err != nil {
		// A disk that cannot be read is somebody's: it is named, and no
		// reason to stop for a box that does not need it.
		d.Trouble, d.Group = err.Error(), nil
		d.Found = "something that cannot be read"
		if dev.Holds != "" {
			d.Found = dev.Holds + ", which cannot be read"
		}
		return nil
	}
	switch {
	case d.Holds == lvmMember && d.Owner == "":
		d.Found = "an LVM physical volume"
	case d.Holds == lvmMember:
		d.Found = fmt.Sprintf("the LVM volume group %s", d.Owner)
	case d.Holds != "":
		d.Found = d.Holds
	case len(holders(env, dir)) > 0:
		d.Found = "the device " + strings.Join(holders(env, dir), ", ") + " on top of it"
	case !d.zeros(env):
		d.Found = "data of a kind that nobody knows"
	}
	return nil
}

// inUse says what of the kernel's has the disk, "" for nothing.
func inUse(env Env, dir string, used map[string]bool) string {
	entries, err := os.ReadDir(env.path(dir))
	if err != nil {
		return ""
	}
	parts := 0
	for _, e := range entries {
		if _, err := os.Stat(env.path(filepath.Join(dir, e.Name(), "partition"))); err == nil {
			parts++
		}
	}
	if parts > 0 {
		return fmt.Sprintf("%d partitions", parts)
	}
	number, _ := os.ReadFile(env.path(filepath.Join(dir, "dev"))) // absent is not mounted
	if used[strings.TrimSpace(string(number))] {
		return "a mounted file system"
	}
	return ""
}

// holders are the device-mapper and RAID devices that the kernel has on top.
func holders(env Env, dir string) []string {
	entries, _ := os.ReadDir(env.path(filepath.Join(dir, "holders"))) // absent is none
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// zeros says whether the first and the last MiB are zero: what blkid does not
// know is there all the same. A disk that cannot be read is not.
func (d *Disk) zeros(env Env) bool {
	// O_EXCL on a block device (open(2)): refused while anything of the
	// kernel's has it.
	f, err := os.OpenFile(env.path(d.Name), os.O_RDONLY|os.O_EXCL, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || end < 2*mib {
		return false
	}
	buf, zero := make([]byte, mib), make([]byte, mib)
	for _, at := range []int64{0, end - mib} {
		if _, err := f.ReadAt(buf, at); err != nil || !bytes.Equal(buf, zero) {
			return false
		}
	}
	return true
}

// describe asks udev for the lasting name, and for what sysfs does not have.
func (d *Disk) describe(ctx context.Context, env Env) {
	out, err := env.run(ctx, "udevadm", "info", "--query=property", "--name=/dev/"+d.Kernel)
	if err != nil {
		return // names are for people only
	}
	p := lines(out)
	if d.Model == "" {
		d.Model = status.Printable(p["ID_MODEL"])
	}
	if d.Serial == "" {
		d.Serial = status.Printable(p["ID_SERIAL_SHORT"])
	}
	d.ID = lasting(strings.Fields(p["DEVLINKS"]))
}

// lasting picks the name to show: one by identity before one by place, the
// shortest of several, and none of what LVM's metadata says, which a clone
// has too.
func lasting(links []string) string {
	slices.SortFunc(links, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	for _, dir := range []string{"/dev/disk/by-id/", "/dev/disk/by-path/"} {
		for _, l := range links {
			if strings.HasPrefix(l, dir) && !strings.HasPrefix(l, dir+"lvm-") {
				return l
			}
		}
	}
	return ""
}

// resolve finds what a path below /dev/disk means now: a kernel name, "" where
// there is no such path. A partition is an error.
func resolve(env Env, path string) (string, error) {
	target, err := filepath.EvalSymlinks(env.path(path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	kernel := filepath.Base(target)
	if _, err := os.Stat(env.path(filepath.Join("sys/class/block", kernel, "partition"))); err == nil {
		return "", fmt.Errorf("%s is a partition (%s); name the whole disk", path, kernel)
	}
	return kernel, nil
}

// newPV makes up the id of a physical volume: 32 letters and digits in groups
// as LVM writes them (pvcreate(8), --uuid).
func newPV(random io.Reader) (string, error) {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	var b strings.Builder
	one := make([]byte, 1)
	for i := 0; i < 32; {
		if _, err := io.ReadFull(random, one); err != nil {
			return "", err
		}
		if int(one[0]) >= 256/len(letters)*len(letters) {
			continue
		}
		if i >= 6 && (i-6)%4 == 0 && i <= 26 {
			b.WriteByte('-')
		}
		b.WriteByte(letters[int(one[0])%len(letters)])
		i++
	}
	return b.String(), nil
}

var pvShape = regexp.MustCompile(`^[A-Za-z0-9]{6}(-[A-Za-z0-9]{4}){5}-[A-Za-z0-9]{6}$`)

// groupID says whether s is an LVM id as vgs prints it.
func groupID(s string) bool { return pvShape.MatchString(s) }
