// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/version"
)

// Codes of this package's conditions.
const (
	CondAvailable   = "upgrade-available"
	CondFailed      = "upgrade-failed"
	CondQuarantined = "release-quarantined"
	CondHeld        = "rollback-held"
	CondUnreachable = "update-source-unreachable"
	CondUntrusted   = "update-source-not-trusted"
	CondExpires     = "update-metadata-expires"
	CondTrial       = "trial-running"
	CondUnsettled   = "upgrade-unsettled"
	CondForeign     = "foreign-root"
)

// Codes lists them.
func Codes() []string {
	return []string{CondAvailable, CondFailed, CondQuarantined, CondHeld, CondUnreachable, CondUntrusted, CondExpires, CondTrial, CondUnsettled, CondForeign}
}

// expiresSoon is when the age of metadata is worth a word.
const expiresSoon = 7 * 24 * time.Hour

// Conditions of upgrades that an admin should know.
func (m *Machine) Conditions() []status.Condition {
	now, up := m.c.Now(), m.c.Box.Uptime()
	m.mu.Lock()
	rec := m.rec
	m.mu.Unlock()
	runs := m.trialRuns(rec)
	m.mu.Lock()
	defer m.mu.Unlock()
	return conditions(facts{
		rec: rec, trial: runs, known: m.known, history: m.history, state: m.live.State, gate: m.why, unsettled: m.unsettled,
		now: now, uptime: up, waits: m.req != nil,
	})
}

// facts are what conditions follow from.
type facts struct {
	rec       slot.Record
	known     known
	history   History
	state     string
	gate      Verdict
	unsettled string
	now       time.Time
	uptime    time.Duration
	trial     bool // the one in the record runs, undecided
	waits     bool // something is on its way
}

// conditions is pure.
func conditions(f facts) []status.Condition {
	out := []status.Condition{}
	add := func(code, severity, remedy, format string, args ...any) {
		out = append(out, status.Condition{Code: code, Severity: severity, Text: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	if t := f.rec.Trial; f.trial {
		what := t.Release
		if f.gate.Why != "" {
			what += ": " + f.gate.Why
		}
		if t.Kind == slot.Rollback && f.uptime >= deadlineOf(t) {
			add(CondHeld, "critical", "mend the service that is named (holdfast logs); it is committed as soon as all are healthy. holdfast upgrade --cancel gives it up",
				"the rollback to generation %d is held, nobody can reach the services: %s", t.Number, what)
		} else {
			add(CondTrial, "info", "none needed; holdfast status shows how far it is", "a trial runs and nobody can reach the services until it is committed: %s", what)
		}
	}
	if r := f.history.last(); r != nil && r.Result == RolledBack {
		add(CondFailed, "warning", "holdfast why", "%s", explain(*r).Sentence)
	}
	if names := quarantined(f); len(names) > 0 {
		add(CondQuarantined, "info", "none needed, a later release replaces it; holdfast upgrade --force tries it again", "will not be installed again, because it failed here: %s", strings.Join(names, ", "))
	}
	if f.known.Available != "" && !f.waits {
		add(CondAvailable, "info", "holdfast upgrade --check", "%s can be installed", f.known.Available)
	}
	if f.known.Unreachable != "" {
		add(CondUnreachable, "warning", "check the network, the proxy and update.source; holdfast upgrade --check asks again", "the source of updates does not answer: %s", f.known.Unreachable)
	}
	if f.known.Untrusted != "" {
		add(CondUntrusted, "critical", "ask the vendor; nothing of it was used", "what the source of updates says was refused: %s", f.known.Untrusted)
	}
	if e := f.known.Expires; !e.IsZero() && e.Sub(f.now) < expiresSoon {
		state := "expire"
		if !e.After(f.now) {
			state = "have expired"
		}
		add(CondExpires, "warning", "ask the vendor to publish anew; what is installed is not affected", "the signed metadata of the source of updates %s at %s", state, e.UTC().Format("2006-01-02 15:04 MST"))
	}
	if f.unsettled != "" {
		add(CondUnsettled, "warning", "none needed as a rule, it is tried again; journalctl -u holdfast", "what follows a commit is not all done: %s", f.unsettled)
	}
	return status.SortConditions(out)
}

// quarantined names those quarantined releases that are newer than what runs.
func quarantined(f facts) []string {
	_, runs, _ := strings.Cut(f.rec.Committed.Release, " ")
	var out []string
	for _, r := range f.history.Rows {
		_, v, _ := strings.Cut(r.To, " ")
		if r.Digest == "" || !slices.Contains(f.rec.Quarantined, r.Digest) || slices.Contains(out, r.To) {
			continue
		}
		if version.Valid(v) && version.Valid(runs) && version.Compare(v, runs) <= 0 {
			continue
		}
		out = append(out, r.To)
	}
	return out
}
