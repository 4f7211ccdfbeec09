// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"os"
	"testing"
)

// TestMain makes the test binary the child process where it is started as one.
func TestMain(m *testing.M) {
	if os.Getenv("HOLDFAST_PREPARE_CHILD") != "" {
		if Main(context.Background(), os.Stdin, os.Stdout) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
