// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

// running follows health: a failure each time a run turns unhealthy, and
// forgiveness after a long time of being well.
func (p Past) running(s *Service, c *engine.Container, now time.Time, jitter func() float64) (Past, string) {
	p.Ending = ""
	switch c.Health {
	case "unhealthy":
		well := p.WellSince
		p.WellSince = time.Time{}
		if !p.Unhealthy.Equal(c.Started) {
			p.Unhealthy = c.Started
			p.Why = "unhealthy"
			if c.HealthLog != "" {
				p.Why += ": " + c.HealthLog
			}
			p = p.forgive(s, well, now)
			p.Cause = causeUnhealthy
			p = p.fail(s, now, jitter)
			return p, p.Why
		}
	case "starting":
		p.WellSince, p.Ended = time.Time{}, endNone
	default:
		p.Ended = endNone
		if p.WellSince.IsZero() {
			p.WellSince = now
			if c.Health == "none" && c.Started.Before(now) && !c.Started.IsZero() {
				p.WellSince = c.Started
			}
		}
		if p.WellSince.After(now) {
			p.WellSince = now // the clock was set back
		}
		if p.Failures > 0 && now.Sub(p.WellSince) >= ResetAfter {
			p.Failures, p.Attempts, p.FailingSince = 0, 0, time.Time{}
			return p, fmt.Sprintf("well for %s, its failures are forgotten", ResetAfter)
		}
	}
	return p, ""
}

// forgive drops earlier failures where the run that ends at end was well for
// long enough, or where a restart counts as a success by the policy's window.
func (p Past) forgive(s *Service, well, end time.Time) Past {
	if well.IsZero() {
		return p
	}
	lasted := end.Sub(well)
	if lasted >= ResetAfter {
		p.Failures, p.Attempts, p.FailingSince = 0, 0, time.Time{}
	} else if w := s.Restart.Window; w > 0 && lasted >= w && p.Attempts > 0 {
		p.Attempts-- // this restart succeeded, in the words of the specification
	}
	return p
}

// gone is for a service without a container.
func (p Past) gone(fresh bool, now time.Time) (Past, string) {
	p.WellSince, p.Limits, p.PostStart, p.Ending = time.Time{}, nil, "", ""
	if p.Container == "" {
		return p, ""
	}
	ours := p.Removing == p.Container
	p.Container = ""
	if ours {
		return p, ""
	}
	if !fresh {
		p.Cause = causeDrift
	}
	p.Drift = &Drift{At: now, Text: "its container was removed"}
	return p, "its container is gone; somebody removed it"
}

// ended sorts the end of a container. counted is false where the end was
// first seen after the box, the engine or the memory started afresh.
func (p Past) ended(s *Service, generation int, c *engine.Container, o Observed, counted bool, now time.Time, jitter func() float64) (Past, string) {
	well := p.WellSince
	p.WellSince = time.Time{}
	if s.OneShot && c.ExitCode == 0 && c.Labels[labelGeneration] == fmt.Sprint(generation) && c.Labels[labelHash] == s.Hash {
		p.Why, p.Ended, p.Failures, p.Attempts, p.FailingSince, p.Ending = endText(c), endDone, 0, 0, time.Time{}, ""
		p.Completed = &Completion{Generation: generation, Hash: s.Hash, At: c.Finished}
		return p, "completed"
	}
	if p.Ending == c.ID || !p.Stopped.IsZero() || p.Shed != nil || p.Removing == c.ID {
		// Our own doing; what was to follow follows.
		p.Ending = ""
		return p, ""
	}
	// With the code of SIGKILL alone: the kernel may have ended a part that
	// the service could do without.
	starved := c.OOMKilled || o.OOM[c.ID] && c.ExitCode == killed
	p.Why = endText(c)
	if starved {
		p.Why = starvedText(c)
	}
	if !counted || o.Stopping {
		p.Ended = endNone
		return p, ""
	}
	byHand := o.ByHand[c.ID]
	if byHand && s.Restart.Mode == "unless-stopped" {
		p.Ended, p.Why = endByHand, "stopped by hand"
		return p, p.Why
	}
	switch {
	case s.Restart.Mode == "no" && c.ExitCode == 0, s.Restart.Mode == "on-failure" && c.ExitCode == 0 && !s.OneShot:
		p.Ended = endDone
		return p, p.Why
	case s.Restart.Mode == "no":
		p.Ended = endGaveUp
		return p, p.Why + ", and its restart policy is no"
	}
	p.Cause = causeExit
	switch {
	case byHand:
		p.Cause, p.Why = causeDrift, "stopped by hand ("+p.Why+")"
		p.Drift = &Drift{At: now, Text: "it was stopped by hand and started again"}
	case starved:
		p.Cause = causeOOM
	}
	p = p.forgive(s, well, c.Finished)
	p = p.fail(s, now, jitter)
	return p, p.Why
}

// fail counts a failure and sets when the next start may be.
func (p Past) fail(s *Service, now time.Time, jitter func() float64) Past {
	if p.Failures == 0 || p.FailingSince.IsZero() || p.FailingSince.After(now) {
		p.FailingSince = now
	}
	p.Failures++
	p.Attempts++
	p.Ended = endRetry
	wait := Delay(p.Failures, jitter())
	if s != nil && s.Restart.Delay > 0 {
		// The delay that the stack asks for, to the letter; a crash loop is
		// slowed down all the same.
		if p.Failures < crashLoopAt {
			wait = 0
		}
		wait = max(wait, s.Restart.Delay)
	}
	if s != nil && s.Restart.Max > 0 && p.Attempts > s.Restart.Max {
		p.Ended = endGaveUp
		p.Why += fmt.Sprintf(", after %d restarts, which is all its policy allows", s.Restart.Max)
	}
	p.NotBefore = now.Add(wait)
	return p
}

// killed is the exit code of what SIGKILL ended, killedText how it reads.
const (
	killed     = 128 + 9
	killedText = "ended with exit code 137"
)

func starvedText(c *engine.Container) string {
	return fmt.Sprintf("killed for lack of memory (exit code %d)", c.ExitCode)
}

func endText(c *engine.Container) string {
	switch {
	case c.OOMKilled:
		return starvedText(c)
	case c.Error != "":
		return c.Error
	}
	return fmt.Sprintf("ended with exit code %d", c.ExitCode)
}
