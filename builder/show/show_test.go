// SPDX-License-Identifier: Apache-2.0

package show

import (
	"testing"

	"github.com/holdfast/holdfast/builder"
)

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 576 << 20: "576.0 MiB", 3 << 40: "3.0 TiB", 5 << 50: "5120.0 TiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestStep(t *testing.T) {
	for want, s := range map[string]builder.StepTime{
		"rootfs                       61.2 s    576.0 MiB":         {Name: "rootfs", Seconds: 61.25, Bytes: 576 << 20},
		"factory                       0.0 s     80.0 MiB  cached": {Name: "factory", Seconds: 0.04, Bytes: 80 << 20, Cached: true},
		"sbom                          1.5 s":                      {Name: "sbom", Seconds: 1.5},
	} {
		if got := Step(s); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}
