// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"os"
	"sync"
	"testing"
)

// shared is a folder for what several tests read, removed at the end.
var shared string

// TestMain makes the test binary the child process where it is started as one.
func TestMain(m *testing.M) {
	if os.Getenv("HOLDFAST_PREPARE_CHILD") != "" {
		err := Main(context.Background(), os.Stdin, os.Stdout)
		// Not the parent's: what rusage tells begins before exec.
		if status, err := os.ReadFile("/proc/self/status"); err == nil {
			os.Stderr.Write(status)
		}
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	var err error
	if shared, err = os.MkdirTemp("", "prepare-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(shared)
	os.Exit(code)
}

var onePair struct {
	sync.Once
	pair
}

// makePair gives two releases, made once; nobody writes to them.
func makePair(t testing.TB) pair {
	t.Helper()
	onePair.Do(func() { onePair.pair = newPair(t) })
	if onePair.new.dir == "" {
		t.Fatal("the releases could not be made")
	}
	return onePair.pair
}
