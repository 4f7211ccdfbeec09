// SPDX-License-Identifier: Apache-2.0

//go:build bake

package bake

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// edit is a change of one file of the stack or the lock.
type edit struct{ old, new string }

// TestBadInput holds the bake to one clear error for each bad input, with the
// file and line or the key, and to leaving nothing behind.
func TestBadInput(t *testing.T) {
	for _, row := range []struct {
		name  string
		stack edit
		lock  edit
		// set changes the request; dir is an empty folder.
		set  func(r *request, dir string)
		want string
		// never is what would send the reader the wrong way.
		never string
	}{
		{name: "image without digest, no lock",
			set:  func(r *request, dir string) { r.lock = filepath.Join(dir, "none.lock") },
			want: `lock: .*none\.lock.*holdfast-release lock`},
		{name: "digest in no source",
			lock: edit{`digest: sha256:\w{64}, size`, "digest: sha256:" + strings.Repeat("0", 64) + ", size"},
			want: `holdfast\.demo/db:1\.0\.0.*(sha256:0{64}|not in|found in)`},
		{name: "lock of another stack",
			stack: edit{`(?m)^( +)stop_grace_period: 15s`, "${1}stop_grace_period: 16s"},
			want:  `demo-1\.0\.0\.lock.*holdfast-release lock`},
		{name: "syntax error",
			stack: edit{`(?m)^services:`, "services: ["},
			want:  `compose\.yaml:\d+`},
		{name: "unknown key",
			stack: edit{`(?m)^( +)networks: \[front\]`, "${1}netwroks: [front]"},
			want:  `compose\.yaml:\d+.*netwroks`},
		{name: "dependency cycle",
			stack: edit{`(?m)^( +)networks: \[back\]\n( +)secrets:\n`, "${1}depends_on: [web]\n${1}networks: [back]\n${1}secrets:\n"},
			want:  `compose\.yaml:\d+.*(cycle|circle|itself)`},
		{name: "key that one node cannot honour",
			stack: edit{`(?m)^( +)deploy:\n`, "${1}deploy:\n${1}  placement: {constraints: [node.role == manager]}\n"},
			want:  `compose\.yaml:\d+.*placement`},
		{name: "slot too small",
			set:  func(r *request, _ string) { r.vars = append(r.vars, "slot_size=64MiB") },
			want: `slot_size.*\d+ ?(MiB|bytes)`},
		{name: "disk too small",
			set:  func(r *request, _ string) { r.vars = append(r.vars, "disk_size=128MiB") },
			want: `disk_size.*\d+(\.\d+)? ?(MiB|GiB|bytes)`},
		{name: "mirror down, cold cache",
			set: func(r *request, dir string) {
				r.cache = filepath.Join(dir, "cold")
				// Nothing listens on the discard port of a test host.
				r.vars = append(r.vars, "mirror=http://127.0.0.1:9/debian")
			},
			want: `127\.0\.0\.1:9`},
		{name: "not root",
			set: func(r *request, dir string) {
				// Packer may lie in a folder that only root can enter.
				r.wrap = []string{"unshare", "-m", "sh", "-c", `d=$1; shift; mkdir "$d/bin" && : > "$d/bin/packer" || exit 99
mount --bind "$(readlink -f "$(command -v packer)")" "$d/bin/packer" || exit 99
PATH="$d/bin:$PATH" HOME=$d TMPDIR=$d PACKER_CONFIG_DIR=$d exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"`, "sh", dir}
			},
			want: `needs root`},
		{name: "no mmdebstrap",
			set: func(r *request, dir string) {
				r.cache = filepath.Join(dir, "cold")
				r.wrap = []string{"unshare", "-m", "sh", "-c", `mount --bind /dev/null "$(command -v mmdebstrap)" && exec "$@"`, "sh"}
			},
			want: `mmdebstrap.*(install|make setup)`},
		{name: "disk of the output full",
			set: func(r *request, dir string) {
				r.output = filepath.Join(dir, "full", "out")
				r.wrap = small(filepath.Join(dir, "full"))
			},
			want: `disk is full`},
		{name: "disk of the cache full",
			set: func(r *request, dir string) {
				r.cache = filepath.Join(dir, "full", "cache")
				r.wrap = small(filepath.Join(dir, "full"))
			},
			want: `disk is full`, never: `check the network`},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, d := range []string{dir, filepath.Dir(dir)} { // one row is not root
				if err := os.Chmod(d, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			r := request{output: filepath.Join(dir, "dist", "demo")}
			r.stack = filepath.Join(dir, "stack", "compose.yaml")
			if err := os.CopyFS(filepath.Dir(r.stack), os.DirFS(filepath.Dir(stack))); err != nil {
				t.Fatal(err)
			}
			rewrite(t, r.stack, r.stack, row.stack)
			r.lock = filepath.Join(dir, filepath.Base(lockFile))
			rewrite(t, lockFile, r.lock, row.lock)
			if row.set != nil {
				row.set(&r, dir)
			}
			before := observe(t)
			out, code := r.run(t)
			if code == 0 {
				t.Fatalf("the bake worked:\n%s", out)
			}
			if !regexp.MustCompile(row.want).MatchString(out) {
				t.Errorf("the bake does not say /%s/ but:\n%s", row.want, out)
			}
			if row.never != "" && regexp.MustCompile(row.never).MatchString(out) {
				t.Errorf("the bake also says /%s/:\n%s", row.never, out)
			}
			if strings.Contains(out, "panic:") || strings.Contains(out, "goroutine ") {
				t.Errorf("the bake shows its inside:\n%s", out)
			}
			t.Logf("it says: %s", lastError(out))
			before.unchanged(t)
			if left := listing(t, filepath.Dir(r.output)); strings.Count(left, "\n") > 1 {
				t.Errorf("left behind:\n%s", left)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "left")); err == nil && len(left) > 0 {
				data, _ := os.ReadFile(left[0])
				if len(data) > 0 {
					t.Errorf("left behind on the full disk:\n%s", data)
				}
			}
		})
	}
}

// small runs a bake with a file system of 48 MiB at dir, and lists afterwards
// what the bake left of an output there.
func small(dir string) []string {
	return []string{"unshare", "-m", "sh", "-c", `d=$1; shift
mkdir -p "$d" && mount -t tmpfs -o size=48m none "$d" || exit 99
"$@"; code=$?
find "$d" -name out -o -name '*.baking' -o -name '*.tmp-*' > "$d/../left"
exit $code`, "sh", dir}
}

// rewrite copies a file with a change; an edit that changes nothing is a test
// that has gone stale.
func rewrite(t *testing.T, from, to string, e edit) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if e.old != "" {
		re := regexp.MustCompile(e.old)
		if !re.Match(data) {
			t.Fatalf("%s holds nothing like /%s/: mend this test", from, e.old)
		}
		first := true
		data = re.ReplaceAllFunc(data, func(m []byte) []byte {
			if !first {
				return m
			}
			first = false
			return re.ReplaceAll(m, []byte(e.new))
		})
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// lastError is what Packer repeats at its end, for the log.
func lastError(out string) string {
	if i := strings.LastIndex(out, "--> "); i >= 0 {
		out = out[i:]
	}
	return strings.TrimSpace(out)
}
