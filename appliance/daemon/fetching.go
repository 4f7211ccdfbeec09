// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/fetch"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
)

const (
	// fetchLineEvery is the least time between two lines about a fetch, which
	// may take hours.
	fetchLineEvery = 10 * time.Second
	// refusedAgain is how long after all sources have refused an image they
	// are asked anew: somebody may have pushed it, or opened a way to it.
	refusedAgain = 10 * time.Minute
)

// imagesProgress shows how far the images are, in the report and on the
// console; a fetch that waits is a condition.
func (d *Daemon) imagesProgress() func(supervise.Progress) {
	last := ""
	return func(p supervise.Progress) {
		d.say.progress(p)
		text, conds := "the images are being loaded", []status.Condition(nil)
		if f := p.Fetching; f != nil {
			text = fetchText(*f)
			if f.Waiting != "" {
				conds = append(conds, unreachable(*f))
			}
		}
		if text == last {
			return
		}
		last = text
		d.update(func(r *status.Report) bool {
			if r.Stack == "held" { // since the last try
				if text == askingText {
					return false // nothing is better yet
				}
				r.Stack = "starting"
			}
			r.Services = slices.Clone(r.Services)
			for i := range r.Services {
				r.Services[i].State, r.Services[i].Reason = "waiting", text
			}
			d.setStackConditions(r, append(slices.Clone(d.rootCond), conds...))
			return true
		})
	}
}

func unreachable(f supervise.Fetching) status.Condition {
	return status.Condition{Code: "images-unreachable", Severity: "critical",
		Text:   "the stack's images cannot be fetched yet: " + f.Waiting,
		Remedy: "give this box a way to that registry, or set registry_mirrors or proxy in its configuration, or put the images on it as an OCI layout (docs/seed.md); it keeps trying"}
}

const askingText = "the images are being fetched: asking what they consist of"

func fetchText(f supervise.Fetching) string {
	switch {
	case f.Waiting != "":
		return "waiting for the stack's images: " + f.Waiting
	case f.Total == 0:
		return askingText
	}
	return "the images are being fetched: " + fetched(f)
}

// fetched is "120 of 890 MB, 4.2 MB/s, 3 min left".
func fetched(f supervise.Fetching) string {
	s := fmt.Sprintf("%d of %d MB", mb(min(f.Done, f.Total)), mb(f.Total))
	if f.Rate > 0 {
		s += fmt.Sprintf(", %.1f MB/s", float64(f.Rate)/1e6)
	}
	if f.Left > 0 {
		s += ", " + roughly(f.Left) + " left"
	}
	return s
}

func roughly(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", max(1, d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.1f h", d.Hours())
}

// fetching is the console's side of a fetch; mu is held.
func (c *console) fetching(p supervise.Progress) {
	now := time.Now()
	if p.Fetching.Waiting != "" || p.Fetching.Total == 0 || now.Sub(c.last) < fetchLineEvery {
		return // a wait is a condition, which is written once
	}
	c.last = now
	c.write("fetching images, %s", fetched(*p.Fetching))
}

// refused are the failures of a fetch that only somebody's act mends, and that
// need no restart once it is done.
func refused(err error) error {
	var no *fetch.RefusedError
	var room *fetch.NoRoomError
	switch {
	case errors.As(err, &no):
		return held("images-refused",
			"let the sources hand the image out, or set registry_mirrors in this box's configuration, or put the image on it as an OCI layout (docs/seed.md); asked again every 10 min", no)
	case errors.As(err, &room):
		return held("images-no-room", "give the box a larger disk and reboot it; tried again every 10 min", room)
	}
	return nil
}

// holdAndWait shows why nothing is started until it is worth another try.
func (d *Daemon) holdAndWait(ctx context.Context, cause error, said string) error {
	d.showHeld(cause, cause.Error() != said)
	t := time.NewTimer(refusedAgain)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
