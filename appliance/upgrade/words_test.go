// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

func TestConditions(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	bad := status.UpgradeResult{Generation: 3, Kind: "upgrade", From: "demo 1.0.0", To: "demo 1.1.1", Digest: "sha256:x", Result: RolledBack, Why: "service web is running and unhealthy", End: now}
	trial := recordOf(trialOf(func(t *slot.Trial) { t.Release = "demo 1.1.0" }))
	held := recordOf(stackTrial(func(t *slot.Trial) { t.Release, t.Kind, t.Deadline = "demo 1.0.0", slot.Rollback, 300 }))
	quarantined := recordOf(nil)
	quarantined.Committed.Release, quarantined.Quarantined = "demo 1.0.0", []string{"sha256:x"}
	newer := quarantined
	newer.Committed.Release = "demo 1.2.0"
	for want, f := range map[string]facts{
		"":                                 {rec: recordOf(nil), known: known{Expires: now.Add(30 * 24 * time.Hour)}},
		CondAvailable:                      {known: known{Available: "demo 1.1.0"}},
		CondUnreachable:                    {known: known{Unreachable: "no route"}},
		CondUntrusted:                      {known: known{Untrusted: "signed by nobody"}},
		CondExpires:                        {known: known{Expires: now.Add(6 * 24 * time.Hour)}},
		CondUnsettled:                      {unsettled: "the ESP: input/output error"},
		CondTrial:                          {rec: trial, trial: true},
		CondHeld:                           {rec: held, trial: true, uptime: time.Hour},
		CondFailed + "!":                   {rec: newer, history: History{Rows: []status.UpgradeResult{bad}}},
		CondFailed + "," + CondQuarantined: {rec: quarantined, history: History{Rows: []status.UpgradeResult{bad}}},
	} {
		f.now = now
		var codes []string
		for _, c := range conditions(f) {
			codes = append(codes, c.Code)
			if c.Remedy == "" || c.Text == "" || strings.Contains(c.Text, "%!") || !slices.Contains(Codes(), c.Code) || !slices.Contains([]string{"info", "warning", "critical"}, c.Severity) {
				t.Errorf("%+v", c)
			}
		}
		if got := strings.Join(codes, ","); got != strings.TrimSuffix(want, "!") {
			t.Errorf("%s, want %s", got, want)
		}
	}
	// On its way it is not offered.
	if c := conditions(facts{now: now, known: known{Available: "demo 1.1.0"}, waits: true}); len(c) > 0 {
		t.Errorf("%v", c)
	}
}

// Every code of a condition and of a refusal is documented.
func TestDocs(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	operate, refusals := read("../../docs/operate.md"), read("../../docs/upgrade.md")
	for _, c := range Codes() {
		if !strings.Contains(operate, "`"+c+"`") {
			t.Errorf("the condition %s is not in docs/operate.md", c)
		}
	}
	n := 0
	for _, m := range regexp.MustCompile(`(?m)^\s+Code\w+\s*= "([a-z-]+)"`).FindAllStringSubmatch(read("errors.go"), -1) {
		if n++; !strings.Contains(refusals, "`"+m[1]+"`") {
			t.Errorf("the refusal %s is not in docs/upgrade.md", m[1])
		}
	}
	if n < 20 {
		t.Errorf("only %d codes found", n)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h History
	long := []status.Evidence{{What: "x", Lines: slices.Repeat([]string{strings.Repeat("x", 9999)}, 500)}}
	for n := range 500 {
		h = h.with(status.UpgradeResult{Generation: n + 1, Evidence: long})
	}
	h = h.with(status.UpgradeResult{Generation: 500, Result: Committed})
	if len(h.Rows) != mostRows || h.Rows[mostRows-1].Result != Committed || h.Rows[0].Generation != 301 {
		t.Errorf("%d rows, from %d", len(h.Rows), h.Rows[0].Generation)
	}
	// Rows without a generation are all kept apart.
	h = h.with(status.UpgradeResult{Result: Cancelled}).with(status.UpgradeResult{Result: Cancelled})
	if h.Rows[mostRows-2].Result != Cancelled {
		t.Error("two that were cancelled are one")
	}
	b, err := json.Marshal(h)
	if err != nil || len(b) > mostFile {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestPlanText(t *testing.T) {
	for name, c := range map[string]struct {
		c    Course
		want string
	}{
		"system": {Course{Kind: slot.Upgrade, Reboot: true, From: "demo 1.0.0", To: "demo 1.1.0", Slot: "B", GiveUp: "its slot is needed", Window: "Sun 02:00-04:00 UTC"}, `give up the kept generation: its slot is needed
fetch and verify the system into slot B, and the stack's files and images, while demo 1.0.0 serves
wait for the maintenance window Sun 02:00-04:00 UTC
note which services are healthy, and how fast
arm the trial of demo 1.1.0
place its kernel image, with one try
stop the services of demo 1.0.0
reboot into slot B
watch that all services get healthy, nothing gets worse, and stays so; ingress is closed
commit demo 1.1.0
let the firmware boot it from now on
label its data as committed
open ingress
write it into the history
free what is not needed any more
bring systemd-boot to the release's, one copy after the other`},
		"drill of the stack": {Course{Kind: slot.Drill, From: "demo 1.0.0", To: "demo 1.0.0"}, `arm the trial of demo 1.0.0
close ingress
stop the services of demo 1.0.0
mount a fresh snapshot of the data
start the services of demo 1.0.0
watch that all services get healthy, nothing gets worse, and stays so; ingress is closed
note that the drill has passed, and go back to demo 1.0.0
open ingress
write it into the history
free what is not needed any more`},
	} {
		if got := strings.Join(Lines(Plan(c.c)), "\n"); got != c.want {
			t.Errorf("%s:\n%s", name, got)
		}
	}
	// Whatever the way, the order that crashes rely on holds.
	for bits := range 1 << 4 {
		for _, kind := range []string{slot.Upgrade, slot.Rollback, slot.Drill} {
			c := Course{Kind: kind, Reboot: bits&1 > 0, KeepData: bits&2 > 0}
			if bits&4 > 0 {
				c.GiveUp = "x"
			}
			if bits&8 > 0 {
				c.Window = "y"
			}
			at := map[Do]int{}
			for i, s := range Plan(c) {
				at[s.Do] = i + 1
			}
			for _, pair := range [][2]Do{{DoGiveUp, DoPrepare}, {DoPrepare, DoArm}, {DoWindow, DoArm}, {DoArm, DoPlace}, {DoPlace, DoQuiesce}, {DoQuiesce, DoReboot}, {DoClose, DoQuiesce},
				{DoQuiesce, DoSwitch}, {DoSwitch, DoStart}, {DoGate, DoCommit}, {DoCommit, DoESP}, {DoESP, DoOpen}, {DoCommit, DoFree}} {
				if a, b := at[pair[0]], at[pair[1]]; a > 0 && b > 0 && a > b {
					t.Errorf("%s comes after %s in %v", pair[0], pair[1], Plan(c))
				}
			}
		}
	}
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "upgrade")
	f := Folder(dir)
	if _, err := f.Read("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read: %v", err)
	}
	if err := f.Remove("x"); err != nil {
		t.Errorf("Remove: %v", err)
	}
	if err := f.Write("x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if b, err := f.Read("x"); err != nil || string(b) != "1" {
		t.Errorf("%q, %v", b, err)
	}
	if err := f.Remove("x"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "y"), make([]byte, mostFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read("y"); err == nil {
		t.Error("a file without bounds is read")
	}
}

// oneFile is Files with the same bytes under every name.
type oneFile []byte

func (f oneFile) Read(string) ([]byte, error) { return f, nil }
func (oneFile) Write(string, []byte) error    { return nil }
func (oneFile) Remove(string) error           { return nil }

// Files that were damaged lose what was in them, and nothing else.
func FuzzFiles(f *testing.F) {
	for _, v := range []any{request{Kind: slot.Upgrade, Candidate: &Candidate{}}, History{Rows: []status.UpgradeResult{{Generation: 1}}}, known{Available: "x"}} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := New(Config{Files: oneFile(b)})
		if r := m.loadRequest(); r != nil && r.Kind == slot.Upgrade && r.Candidate == nil {
			t.Error("an upgrade to nothing")
		}
		m.loadKnown()
		m.history = m.loadHistory()
		if w, err := m.Why(0); err == nil && w.Sentence == "" {
			t.Error("no sentence")
		}
	})
}
