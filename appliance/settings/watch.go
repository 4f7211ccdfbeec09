// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Watch calls changed whenever the kernel says that an address or a network
// interface came, went or changed, until ctx ends (rtnetlink(7)). What the
// change was is for the caller to look up: messages may be lost when many come
// at once, which also is a call.
func Watch(ctx context.Context, changed func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("watching network addresses: %w", err)
	}
	f := os.NewFile(uintptr(fd), "rtnetlink")
	defer f.Close()
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return fmt.Errorf("watching network addresses: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	// What happened before the socket was bound.
	changed()
	buf := make([]byte, 64<<10)
	for {
		_, err := f.Read(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// Too many at once: some are lost, which changed makes up for.
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("watching network addresses: %w", err)
		}
		changed()
	}
}
