// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Target is one line of a device-mapper table or status.
type Target struct {
	// Start and Length in sectors of 512 bytes.
	Start, Length uint64
	// Type is the target's name, "verity".
	Type string
	// Params is the table line or the status line.
	Params string
}

// Verity is what the kernel says about a dm-verity device.
type Verity struct {
	// Device is the kernel name of the partition with data and tree, "vda2".
	Device string
	// Mapped is the kernel name of the dm-verity device itself, "dm-0".
	Mapped string
	// Hash is the root hash in hex.
	Hash string
	// HashStart is the byte offset of the first hash block, behind the
	// superblock.
	HashStart int64
	// DataBytes is the size of what is verified.
	DataBytes int64
	// OK is true while the kernel has met no corrupted block (status "V").
	OK bool
}

// Verified reports whether the mounted root is a dm-verity device with that
// root hash and the kernel has seen no corrupted block on it.
func Verified(root, hash string) (bool, error) {
	v, err := MountedVerity(root)
	if err != nil {
		return false, err
	}
	return v.OK && v.Hash == hash, nil
}

// MountedVerity asks the kernel about the device that is mounted at /.
func MountedVerity(root string) (Verity, error) {
	number, err := rootDevice(root)
	if err != nil {
		return Verity{}, err
	}
	name := line(root, filepath.Join("sys/dev/block", number, "dm/name"))
	if name == "" {
		return Verity{}, fmt.Errorf("the root, device %s, is not a device-mapper device", number)
	}
	control := filepath.Join("/", root, "dev/mapper/control")
	table, err := query(control, name, unix.DM_STATUS_TABLE_FLAG)
	if err != nil {
		return Verity{}, err
	}
	state, err := query(control, name, 0)
	if err != nil {
		return Verity{}, err
	}
	v, err := parseVerity(root, table, state)
	if err != nil {
		return v, err
	}
	link, err := os.Readlink(filepath.Join("/", root, "sys/dev/block", number))
	if err != nil {
		return v, fmt.Errorf("the root's device: %w", err)
	}
	v.Mapped = filepath.Base(link)
	return v, nil
}

func rootDevice(root string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/", root, "proc/self/mountinfo"))
	if err != nil {
		return "", err
	}
	dev := ""
	for l := range strings.SplitSeq(string(b), "\n") {
		if f := strings.Fields(l); len(f) > 5 && f[4] == "/" {
			dev = f[2]
		}
	}
	if dev == "" {
		return "", fmt.Errorf("nothing is mounted at /")
	}
	return dev, nil
}

// parseVerity reads table and status as Documentation/admin-guide/
// device-mapper/verity.rst has them: version, data device, hash device, data
// block size, hash block size, data blocks, hash start block, algorithm,
// root digest, salt.
func parseVerity(root string, table, state []Target) (Verity, error) {
	if len(table) != 1 || len(state) != 1 || table[0].Type != "verity" {
		return Verity{}, fmt.Errorf("the root's device is not one dm-verity target")
	}
	f := strings.Fields(table[0].Params)
	if len(f) < 10 {
		return Verity{}, fmt.Errorf("the dm-verity table has %d fields, want 10 or more", len(f))
	}
	if f[1] != f[2] {
		return Verity{}, fmt.Errorf("data and hash tree are on two devices, %s and %s, want one", f[1], f[2])
	}
	var n [4]int64
	for i, s := range f[3:7] {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil || v < 0 || v > 1<<40 {
			return Verity{}, fmt.Errorf("the dm-verity table has %q for a number", s)
		}
		n[i] = v
	}
	v := Verity{Hash: f[8], HashStart: n[1] * n[3], DataBytes: n[0] * n[2]}
	if s := strings.Fields(state[0].Params); len(s) > 0 {
		v.OK = s[0] == "V"
	}
	link, err := os.Readlink(filepath.Join("/", root, "sys/dev/block", f[1]))
	if err != nil {
		return v, fmt.Errorf("the device below the root: %w", err)
	}
	v.Device = filepath.Base(link)
	return v, nil
}

// query is the DM_TABLE_STATUS ioctl of device-mapper's control device
// (linux/dm-ioctl.h): no tool and no library is needed for one question.
func query(control, name string, flags uint32) ([]Target, error) {
	f, err := os.OpenFile(control, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("device-mapper: %w", err)
	}
	defer f.Close()
	buf := make([]byte, 16<<10)
	h := (*unix.DmIoctl)(unsafe.Pointer(&buf[0]))
	h.Version = [3]uint32{4, 0, 0}
	h.Data_size = uint32(len(buf))
	h.Data_start = uint32(unsafe.Sizeof(*h))
	h.Flags = flags
	if len(name) >= len(h.Name) {
		return nil, fmt.Errorf("device-mapper name %q is too long", name)
	}
	copy(h.Name[:], name)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.DM_TABLE_STATUS, uintptr(unsafe.Pointer(&buf[0]))); e != 0 {
		return nil, fmt.Errorf("device-mapper status of %s: %w", name, e)
	}
	if h.Data_start > uint32(len(buf)) {
		return nil, fmt.Errorf("device-mapper status of %s: answer out of bounds", name)
	}
	return parseTargets(buf[h.Data_start:], int(h.Target_count))
}

// parseTargets reads the array of struct dm_target_spec, each followed by its
// text; next is relative to the start of the whole array for a status.
func parseTargets(b []byte, n int) ([]Target, error) {
	const head = 40 // u64 start, u64 length, s32 status, u32 next, char type[16]
	var out []Target
	off := 0
	for range n {
		if off < 0 || off+head > len(b) {
			return nil, fmt.Errorf("device-mapper answer is cut short")
		}
		spec := b[off:]
		text := spec[head:]
		if i := bytes.IndexByte(text, 0); i >= 0 {
			text = text[:i]
		}
		out = append(out, Target{
			Start: binary.NativeEndian.Uint64(spec), Length: binary.NativeEndian.Uint64(spec[8:]),
			Type: string(bytes.TrimRight(spec[24:40], "\x00")), Params: string(text),
		})
		next := int(binary.NativeEndian.Uint32(spec[20:]))
		if next <= off {
			break
		}
		off = next
	}
	if len(out) != n {
		return nil, fmt.Errorf("device-mapper answer has %d of %d targets", len(out), n)
	}
	return out, nil
}
