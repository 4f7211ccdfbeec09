// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"fmt"
	"strings"
)

const (
	green  = "green"
	yellow = "yellow"
	orange = "orange"
	red    = "red"
	blue   = "blue"
	purple = "purple"
	gray   = "#6e7077"
)

// stackValues number the states of a stack, so that one line can show them.
var stackValues = []Value{
	{1, "starting", blue}, {2, "healthy", green}, {3, "degraded", red}, {4, "held", purple}, {5, "stopping", gray}, {6, "stopped", gray},
}

// serviceValues do the same for services; the last two are running services
// whose checks do not (yet) succeed.
var serviceValues = []Value{
	{1, "running", green}, {2, "completed", "#3f6833"}, {3, "waiting", blue}, {4, "backoff", orange}, {5, "crash-loop", red}, {6, "held", purple},
	{7, "shed", "#b877d9"}, {8, "stopped", gray}, {9, "paused", gray}, {10, "exited", yellow}, {11, "unknown", "#3a3c42"},
	{12, "unhealthy", "#e0533d"}, {13, "starting", "#8ab8ff"},
}

// upgradeValues do it for what is under way between two releases.
var upgradeValues = []Value{
	{1, "idle", gray}, {2, "checking", gray}, {3, "fetching", blue}, {4, "ready", "#8ab8ff"}, {5, "switching", orange}, {6, "trial", yellow},
	{7, "committing", green}, {8, "rolling-back", red}, {9, "held", purple},
}

// numbered is an expression whose value is the number of the state.
func numbered(by, metric, matchers string, values []Value) string {
	var terms []string
	for _, v := range values {
		terms = append(terms, fmt.Sprintf(`%d * %s{%s, state="%s"}`, v.N, metric, matchers, v.Text))
	}
	return fmt.Sprintf("sum by (%s) (%s)", by, strings.Join(terms, " or "))
}

func stackState() string {
	return numbered("instance", "holdfast_stack_state", box, stackValues)
}

func upgradeState() string {
	return numbered("instance", "holdfast_upgrade_state", box, upgradeValues)
}

func serviceState() string {
	states := strings.TrimSuffix(numbered("service", "holdfast_service_state", box, serviceValues[:11]), ")")
	running := fmt.Sprintf(`and on (service) holdfast_service_state{%s, state="running"} == 1`, box)
	for _, h := range []struct {
		health string
		more   int // to "running"
	}{{"unhealthy", 11}, {"starting", 12}} {
		states += fmt.Sprintf(` or %d * (holdfast_service_health{%s, health="%s"} %s)`, h.more, box, h.health, running)
	}
	return states + ")"
}
