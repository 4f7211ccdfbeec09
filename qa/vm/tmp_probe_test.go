// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import "testing"

func TestProbeLimits(t *testing.T) {
	b := newBox(t, "")
	b.start()
	b.complete(0, 1)
	checkLimits(b)
	for _, c := range []string{
		"xfs_quota -x -c 'report -p -b' /var/lib/holdfast/data; dd if=/dev/zero of=/var/lib/docker/volumes/demo_db-data/_data/filler bs=1M; df -k /var/lib/holdfast/data; touch /var/lib/holdfast/data/x && echo writable; ls -la /var/lib/holdfast/data; holdfast status; rm /var/lib/docker/volumes/demo_db-data/_data/filler",
		"d=$(grep -o 'upperdir=[^,]*' /proc/self/mountinfo | head -1 | cut -d= -f2); echo $d; dd if=/dev/zero of=$d/filler bs=1M count=1500; df -k /var; holdfast status | tail -8; rm $d/filler",
		"holdfast status",
	} {
		out, code := b.try(c)
		t.Logf("# %s (%d)\n%s", c, code, out)
	}
}
