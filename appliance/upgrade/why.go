// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// Why explains how one upgrade, rollback or drill ended.
type Why struct {
	// Sentence is the whole answer in one.
	Sentence string `json:"sentence"`
	// Result is its row, with the evidence.
	Result status.UpgradeResult `json:"result"`
}

// Text is the answer for people: the sentence, then the evidence.
func (w Why) Text() string {
	var b strings.Builder
	fmt.Fprintln(&b, w.Sentence)
	for _, e := range w.Result.Evidence {
		fmt.Fprintf(&b, "\n%s\n", e.What)
		for _, l := range e.Lines {
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	return b.String()
}

// Why explains how generation n ended, 0 for the last one that did not go
// well, or else the last one.
func (m *Machine) Why(n int) (Why, error) {
	rows := m.History()
	i := slices.IndexFunc(rows, func(r status.UpgradeResult) bool {
		if n != 0 {
			return r.Generation == n
		}
		return r.Result == RolledBack || r.Result == Cancelled
	})
	switch {
	case i < 0 && n != 0:
		return Why{}, &Refused{CodeNotFound, fmt.Sprintf("the history has no generation %d", n), "holdfast history lists all"}
	case i < 0 && len(rows) == 0:
		return Why{}, &Refused{CodeNotFound, "nothing was upgraded on this box yet", "holdfast upgrade --check"}
	case i < 0:
		i = 0
	}
	return explain(rows[i]), nil
}

// explain says in one sentence how a row ended.
func explain(r status.UpgradeResult) Why {
	what := map[string]string{"upgrade": "the upgrade to " + r.To, "rollback": "the rollback to " + r.To, "drill": "the drill"}[r.Kind]
	if what == "" {
		what = r.Kind
	}
	at := r.End.UTC().Format("2006-01-02 15:04 MST")
	var s string
	switch r.Result {
	case RolledBack:
		s = fmt.Sprintf("%s was rolled back at %s to %s: %s", what, at, r.From, r.Why)
	case Cancelled:
		s = fmt.Sprintf("%s was cancelled at %s: %s", what, at, r.Why)
	case Passed:
		s = fmt.Sprintf("%s passed at %s in %s", what, at, (time.Duration(r.Took) * time.Millisecond).Round(time.Second/10))
	default:
		s = fmt.Sprintf("%s was committed at %s", what, at)
	}
	return Why{Sentence: s, Result: r}
}
