// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// Conditions are what an admin should know of the configuration, none where
// all is well. Whether the certificate has expired is judged at e.At: a daemon
// that runs for months sets it before it asks.
func (e Effective) Conditions() []status.Condition {
	var out []status.Condition
	told := map[string]bool{}
	for _, s := range e.Sources {
		c, ok := s.condition()
		// One service that does not answer has two documents.
		if !ok || s.Text != "" && told[c.Code+s.Text] {
			continue
		}
		told[c.Code+s.Text] = true
		out = append(out, c)
	}
	for _, w := range e.Config.Warnings(e.At) {
		out = append(out, status.Condition{Code: "tls-certificate-expired", Severity: "warning", Text: w.Text, Remedy: w.Mend})
	}
	return status.SortConditions(out)
}

func (s SourceState) condition() (status.Condition, bool) {
	c := status.Condition{Severity: "warning"}
	state, instead := s.State, "nothing of it is used"
	if state == Kept {
		state, instead = s.Why, "the good one of "+s.At.UTC().Format(time.DateOnly)+" is used in its place"
	}
	switch state {
	case Refused:
		c.Code = "config-refused"
		c.Text = fmt.Sprintf("the configuration from %s is refused, %s: ", s.Where, instead)
		if len(s.Problems) > 0 {
			c.Text += s.Problems[0].at() + ": " + s.Problems[0].Text
			c.Remedy = s.Problems[0].Mend + "; then reboot"
		}
		if more := len(s.Problems) - 1; more > 0 {
			c.Text += fmt.Sprintf("; and %d more", more)
			c.Remedy += ". `holdfast config` lists all"
		}
	case Unreachable:
		c.Code = "config-unreachable"
		c.Text = fmt.Sprintf("the configuration from %s could not be read (%s), %s", s.Where, s.Text, instead)
		c.Remedy = "mend the cause, then reboot"
		if s.State == Kept {
			c.Code = "config-kept"
		}
	case Absent:
		if s.State != Kept {
			return c, false
		}
		c.Code, c.Severity = "config-kept", "info"
		c.Text = fmt.Sprintf("the %s was not handed over at this boot, %s", s.Where, instead)
		c.Remedy = "none needed; where the settings shall change, start the machine from vCenter, or deploy it anew"
	default:
		return c, false
	}
	return c, true
}
