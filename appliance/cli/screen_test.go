// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// placed is report on a box that has landed somewhere.
func placed() status.Report {
	r := report()
	r.Hostname, r.Platform = "box1.example.com", "vmware"
	r.Addresses = []status.Address{{Interface: "ens192", Address: "10.0.0.5", Prefix: 24}, {Interface: "ens192", Address: "2001:db8::5", Prefix: 64}}
	r.URLs = []string{"http://10.0.0.5/", "http://[2001:db8::5]/"}
	r.SSH = status.SSH{Enabled: true, HostKey: "SHA256:u2bd0yHyQ5cMHnBiPFN5GHuJlHDBGUO3CkLgWWM9QxU", Keys: []string{"SHA256:x", "SHA256:y"}}
	r.Data = &status.DataDisk{Place: "data-disk", Disk: &status.DiskID{Device: "/dev/sdb", Bytes: 20 << 30}}
	r.Config = status.Config{Origin: map[string]string{"network": "ovf"}, Sources: []status.ConfigSource{
		{Name: "file", Where: "config.yaml", State: "absent", Problems: []string{}},
		{Name: "ovf", Where: "OVF environment", State: "kept", Why: "refused", Problems: []string{"OVF environment: address: \"10.0.0\" is no address; write 10.0.0.5/24"}},
	}}
	return r
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = "testdata/" + name + ".golden"
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestScreen(t *testing.T) {
	golden(t, "screen", strings.Join(screenLines(placed()), "\n")+"\n")
	early := status.Report{Stack: "starting", Platform: "qemu", Slot: "A"}
	golden(t, "screen-early", strings.Join(screenLines(early), "\n")+"\n")
}

func TestPlacedStatusTable(t *testing.T) {
	var b bytes.Buffer
	if err := writeStatus(&b, placed(), status.Usage{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "status-placed", b.String())
}

// TestDrawn: a terminal shows what fits, and obeys nothing of what is shown.
func TestDrawn(t *testing.T) {
	size := func() (int, int) { return 30, 4 }
	got := drawn([]string{"short", "äöü, and then more than a row has room for", "third", "fourth"}, size)
	want := "\x1b[?25l\x1b[Hshort\x1b[K\r\näöü, and then more than a row\x1b[K\r\n    has room for\x1b[K\r\n... 2 lines more: holdfast status\x1b[K\x1b[J"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, line := range wrapped([]string{strings.Repeat("x", 100), "a " + strings.Repeat("y", 100), ""}, 30) {
		if len(line) > 30 {
			t.Errorf("%q is longer than the row", line)
		}
	}
	if got := drawn([]string{"x\x1b[2Jy"}, size); !strings.Contains(got, "x?[2Jy") {
		t.Errorf("%q", got)
	}
}

// frames passes on what is drawn.
type frames chan string

func (f frames) Write(p []byte) (int, error) { f <- string(p); return len(p), nil }

// TestScreenFollows the daemon: before it is there, with it, and after it.
func TestScreenFollows(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	socket := t.TempDir() + "/api.sock"
	shown := make(frames)
	s := &screen{o: &options{io: IO{io.Discard, io.Discard}, socket: socket}, w: shown, size: func() (int, int) { return 80, 25 }, every: time.Hour}
	var wg sync.WaitGroup
	run, stop := context.WithCancel(ctx)
	wg.Go(func() { s.run(run) })
	wait := func(want string) {
		t.Helper()
		for {
			select {
			case text := <-shown:
				if strings.Contains(text, want) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("waited for a screen with %q", want)
			}
		}
	}
	wait("does not answer yet")
	end := serveAt(t, socket, control{status.NewFeed(placed()), &answers{}})
	wait("demo 1.0.0 on box1.example.com")
	end()
	wait("does not answer yet")
	stop()
	wg.Wait()
}
