// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import "testing"

func TestProbeLimits(t *testing.T) {
	b := newBox(t, "")
	b.start()
	b.complete(0, 1)
	for _, c := range []string{
		"holdfast status --json",
		"find /sys/fs/cgroup/holdfast.slice -maxdepth 2 -name '*.scope'; for f in memory.min memory.low cpu.weight io.weight pids.max; do grep -H . $(find /sys/fs/cgroup/holdfast.slice -maxdepth 3 -name $f); done",
		"cat /var/lib/holdfast/budget.json /var/lib/holdfast/layers.json /var/lib/holdfast/data/projects.json",
		"xfs_quota -x -c 'report -p -b' /var; xfs_quota -x -c 'report -p -b' /var/lib/holdfast/data; df -k /var /var/lib/holdfast/data; ls -la /var/lib/holdfast /var/lib/holdfast/data",
		"ctr -n moby snapshots ls; systemctl list-units '*.slice' --no-legend; systemctl show -p MemoryMin,CPUWeight,TasksMax holdfast.slice system.slice init.scope",
		"journalctl -b -u holdfast -o cat --no-pager | tail -30",
		"holdfast top --json; cat /proc/pressure/memory",
	} {
		out, code := b.try(c)
		t.Logf("# %s (%d)\n%s", c, code, out)
	}
	checkLimits(b)
	out, code := b.try("holdfast status; dd if=/dev/zero of=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/filler bs=1M count=4000; df -k /var; touch /var/lib/holdfast/x && echo state is writable; docker ps; id=$(docker ps -q | head -1); docker restart -t 5 $id && echo restarted; ls -la /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/; rm /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/filler")
	t.Logf("(%d)\n%s", code, out)
	out, code = b.try("dd if=/dev/zero of=/var/lib/holdfast/data/filler bs=1M; df -k /var/lib/holdfast/data")
	t.Logf("(%d)\n%s", code, out)
	out, code = b.try("timeout 60 sh -c 'while [ -e /var/lib/holdfast/data/ballast ]; do read -t 1 x </dev/tty1; sleep 1; done'; ls -la /var/lib/holdfast/data; holdfast status; rm /var/lib/holdfast/data/filler; timeout 60 sh -c 'while ! [ -e /var/lib/holdfast/data/ballast ]; do sleep 1; done'; ls -la /var/lib/holdfast/data; holdfast status")
	t.Logf("(%d)\n%s", code, out)
}
