// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestChangedUKI changes one byte of the unified kernel image on the ESP: with
// Secure Boot on, the firmware refuses it. (That the unchanged one boots there
// is TestBox.)
func TestChangedUKI(t *testing.T) {
	b := newBox(t, filepath.Join(image.Dir, "signing.crt"))
	at, err := image.LocateUKI()
	if err != nil {
		t.Fatal(err)
	}
	b.flip(at)
	b.opts.Once = true
	b.start()
	b.said(0, `(?i)access denied|security violation`)
	if strings.Contains(b.Console.Text(), "Linux version") {
		t.Error("the kernel started")
	}
}
