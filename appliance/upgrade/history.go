// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"slices"

	"github.com/holdfast/holdfast/appliance/status"
)

// Results of an upgrade, a rollback or a drill.
const (
	Committed  = "committed"
	RolledBack = "rolled-back"
	Cancelled  = "cancelled"
	Passed     = "passed"
)

// Bounds of the history.
const (
	mostRows     = 200
	mostEvidence = 16      // of one row
	mostLines    = 60      // of one piece of evidence
	mostLine     = 2 << 10 // bytes
)

// History is how things ended, the oldest first.
type History struct {
	Rows []status.UpgradeResult `json:"rows"`
}

// find gives the row of a generation. Rows of what was cancelled before it was
// armed have generation 0 and are never found.
func (h History) find(generation int) (status.UpgradeResult, bool) {
	if generation == 0 {
		return status.UpgradeResult{}, false
	}
	i := slices.IndexFunc(h.Rows, func(r status.UpgradeResult) bool { return r.Generation == generation })
	if i < 0 {
		return status.UpgradeResult{}, false
	}
	return h.Rows[i], true
}

// with is the history with a row: in place of that of the same generation, as
// when a power cut came between the row and what follows it, else at the end.
func (h History) with(row status.UpgradeResult) History {
	row.Evidence = bounded(row.Evidence)
	rows := slices.Clone(h.Rows)
	i := slices.IndexFunc(rows, func(r status.UpgradeResult) bool { return row.Generation != 0 && r.Generation == row.Generation })
	if i >= 0 {
		rows[i] = row
	} else {
		rows = append(rows, row)
	}
	// Evidence is kept of the last ones only: it is most of the bytes.
	for i := range max(0, len(rows)-20) {
		rows[i].Evidence = nil
	}
	return History{rows[max(0, len(rows)-mostRows):]}
}

func bounded(list []status.Evidence) []status.Evidence {
	if len(list) > mostEvidence {
		list = list[:mostEvidence]
	}
	out := slices.Clone(list)
	for i := range out {
		lines := slices.Clone(out[i].Lines)
		if len(lines) > mostLines {
			lines = lines[len(lines)-mostLines:]
		}
		for j, l := range lines {
			if len(l) > mostLine {
				lines[j] = l[:mostLine] + "…"
			}
		}
		out[i].Lines = lines
	}
	return out
}

// loadHistory reads it; one that can't be read is begun anew, aloud.
func (m *Machine) loadHistory() History {
	var h History
	if _, err := readJSON(m.c.Files, historyFile, &h); err != nil {
		m.say("the history of upgrades is begun anew: %v", err)
		return History{}
	}
	return h
}

func (m *Machine) addRow(row status.UpgradeResult) error {
	m.mu.Lock()
	h := m.history.with(row)
	m.mu.Unlock()
	if err := writeJSON(m.c.Files, historyFile, h); err != nil {
		return err
	}
	m.mu.Lock()
	m.history = h
	m.mu.Unlock()
	return nil
}

// History is how upgrades, rollbacks and drills ended, the newest first.
func (m *Machine) History() []status.UpgradeResult {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Clone(m.history.Rows)
	slices.Reverse(out)
	return out
}

// last is the newest row, nil before one.
func (h History) last() *status.UpgradeResult {
	if len(h.Rows) == 0 {
		return nil
	}
	r := h.Rows[len(h.Rows)-1]
	return &r
}
