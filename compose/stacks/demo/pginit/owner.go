// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

type identity struct{ uid, gid int }

func lookup(name string) (identity, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return identity{}, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return identity{}, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return identity{}, err
	}
	if uid == 0 {
		return identity{}, fmt.Errorf("user %s is root", name)
	}
	return identity{uid, gid}, nil
}

// handOver gives the volume's own folder to the server's user; a fresh volume
// belongs to root. What lies in it is not touched.
func handOver(dir string, id identity) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("the volume: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) == id.uid && int(sys.Gid) == id.gid {
		return nil
	}
	if err := os.Chown(dir, id.uid, id.gid); err != nil {
		return fmt.Errorf("giving the volume to the server's user: %w", err)
	}
	return nil
}

// become drops root for good, with all its groups; Go applies each call to all
// threads.
func become(id identity) error {
	if err := syscall.Setgroups([]int{id.gid}); err != nil {
		return fmt.Errorf("dropping groups: %w", err)
	}
	if err := syscall.Setresgid(id.gid, id.gid, id.gid); err != nil {
		return fmt.Errorf("dropping the group: %w", err)
	}
	if err := syscall.Setresuid(id.uid, id.uid, id.uid); err != nil {
		return fmt.Errorf("dropping root: %w", err)
	}
	if os.Getuid() != id.uid || os.Geteuid() != id.uid || syscall.Setuid(0) == nil {
		return fmt.Errorf("root was not dropped")
	}
	return nil
}
