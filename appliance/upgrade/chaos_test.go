// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
)

var chaosRuns = flag.Int("chaos", 150, "runs of TestChaos")

// Calls that fail, cuts, kills and orderly reboots at random, on all ways: the
// box rests with old or new.
func TestChaos(t *testing.T) {
	calls := []string{"Entries", "PlaceTrial", "PlaceTrialFromKept", "Bless", "Keep", "RemoveEntry", "Rearm", "UpdateLoader", "Reboot", "SwitchData", "SettleData",
		"StopStack", "StartStack", "CloseIngress", "OpenIngress", "Prepare", "Free", "SaveRecord", "Write request.json", "Write history.json", "Write evidence.json", "Remove request.json"}
	histogram := map[string]int{}
	for seed := range *chaosRuns {
		r := ways()[seed%len(ways())]
		synctest.Test(t, func(t *testing.T) {
			w := r.start(t)
			rnd := rand.New(rand.NewPCG(uint64(seed), 1))
			var what []string
			for range rnd.IntN(4) {
				call, n := calls[rnd.IntN(len(calls))], 1+rnd.IntN(3)
				w.Fail[call] = n
				what = append(what, fmt.Sprintf("%s fails %d times", call, n))
			}
			if rnd.IntN(2) == 0 {
				w.CutAt, w.Kill = 1+rnd.IntN(80), rnd.IntN(2) == 0
				what = append(what, fmt.Sprintf("cut %d, kill %v", w.CutAt, w.Kill))
			}
			if rnd.IntN(3) == 0 {
				seconds := rnd.IntN(40)
				what = append(what, fmt.Sprintf("reboot after %d looks", seconds))
				w.RebootWhen = func(status.Upgrade) bool { seconds--; return seconds < 0 }
			}
			act := func(ctx context.Context, m *upgrade.Machine) error {
				err := r.act(ctx, m)
				if err != nil && strings.Contains(err.Error(), " fails") || errors.Is(err, upgrade.ErrChanged) {
					return nil // it could not even be asked for
				}
				return err
			}
			err := w.Play(act)
			if err == nil {
				clear(w.Fail)
				err = w.Play(nil) // what was to be tried again
			}
			where := fmt.Sprintf("seed %d, %s (%s)", seed, r.name, strings.Join(what, "; "))
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			outcome, wrong := r.end(w)
			if len(wrong) > 0 {
				t.Fatalf("%s: ends with %s; wrong: %s", where, outcome, strings.Join(wrong, "; "))
			}
			if histogram["new"]++; outcome == r.old {
				histogram["new"]--
				histogram["old"]++
			}
		})
	}
	t.Logf("%d runs: %s", *chaosRuns, told(histogram))
}
