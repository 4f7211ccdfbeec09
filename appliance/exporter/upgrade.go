// SPDX-License-Identifier: Apache-2.0

package exporter

import "github.com/holdfast/holdfast/appliance/status"

var (
	upgradeStates  = []string{"idle", "checking", "fetching", "ready", "switching", "trial", "committing", "rolling-back", "held"}
	upgradeResults = []string{"committed", "rolled-back", "cancelled", "passed"}
)

// upgrade sends what is known of other releases.
func (e *emitter) upgrade(u *status.Upgrade) {
	if u == nil {
		return
	}
	e.one(upgradeState, upgradeStates, u.State)
	e.put(upgradeTrial, truth(u.Trial))
	e.put(upgradeAvailable, truth(u.Available != ""))
	e.put(upgradeKept, float64(u.KeptGeneration))
	e.put(upgradeQuarantined, float64(u.Quarantined))
	e.put(upgradeDone, float64(u.Done))
	e.put(upgradeTotal, float64(u.Total))
	if !u.Checked.IsZero() {
		e.put(upgradeChecked, seconds(u.Checked))
	}
	l := u.Last
	if l == nil {
		return
	}
	e.one(upgradeResult, upgradeResults, l.Result, l.Kind)
	e.put(upgradeEnded, seconds(l.End))
	e.put(upgradeDown, float64(l.Down)/1000)
	e.put(upgradeFetched, float64(l.Fetched))
	e.put(upgradeReused, float64(l.Reused))
}
