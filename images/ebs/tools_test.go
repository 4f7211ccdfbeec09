// SPDX-License-Identifier: Apache-2.0

//go:build engine

package ebs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/internal/foreign"
)

// Python's own hashlib and base64 come to the same blocks, digests and
// checksum, by the words of the API reference and without our code.
const reference = `
import base64, hashlib, sys
raw = open(sys.argv[1], "rb").read()
size, digests = 524288, []
for i in range(0, len(raw), size):
    block = raw[i:i+size].ljust(size, b"\0")
    if block.strip(b"\0"):
        digests.append(hashlib.sha256(block).digest())
        print("%4d %s" % (i // size, digests[-1].hex()))
print("%d blocks, checksum %s" % (len(digests), base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode()))
`

func TestPythonAgrees(t *testing.T) {
	raw := sample()
	name := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(name, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	_, put := listOf(t, disk(t, raw), nil)
	t.Setenv("PYTHONHOME", filepath.Join(foreign.Tree(t), "usr"))
	head, list, _ := strings.Cut(report("full", put), "\n")
	want := list + strings.TrimPrefix(head, "full: ") + "\n"
	if got := foreign.MustRun(t, "python3", "-c", reference, name); got != want {
		t.Errorf("python has\n%swe have\n%s", got, want)
	}
}
