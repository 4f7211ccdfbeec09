// SPDX-License-Identifier: Apache-2.0

// Package exporter shows the state of a box to Prometheus, on a listener of
// its own with TLS and basic authentication as its web configuration says
// (https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md).
//
// A scrape takes one status.Report and one status.Usage and turns both into
// metrics; nothing is kept between scrapes, so a scrape can never be older than
// the box. What cannot be read is missing and said to be so
// (holdfast_scrape_usage_success), it never fails the scrape. The package asks
// neither the engine nor the network, and changes nothing.
package exporter

import (
	"context"
	"net"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// Config is what an exporter needs.
type Config struct {
	// Listen is the address to listen on, "HOST:PORT"; an empty host is every
	// address of the machine.
	Listen string
	// WebConfig is the file with certificates and users, in exporter-toolkit's
	// format; "" is plain HTTP for everybody. It is read anew when it changes.
	WebConfig string
	// Report returns what the box says about itself.
	Report func() status.Report
	// Usage reads what services use; nil where nothing reads it. It must
	// return when ctx ends.
	Usage func(ctx context.Context) (status.Usage, error)
	// Work returns what the supervisor's loop has done; nil where it does not
	// count.
	Work func() status.Work
	// ContainerNames adds the names that cAdvisor gives to the same values
	// (container_memory_working_set_bytes{name="demo-web-1"}), for dashboards
	// and alerts that were made for it.
	ContainerNames bool
	// Version is the daemon's.
	Version string
	// Log takes one line for the journal, without a newline; nil drops it.
	Log func(line string)
	// Listening is called once the listener is open; nil is allowed.
	Listening func(net.Addr)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Off is the condition's code while metrics are wanted and cannot be had.
const Off = "metrics-off"

// condition says why nothing listens.
func condition(c Config, err error) *status.Condition {
	remedy := "correct the address metrics shall be served on"
	if c.WebConfig != "" {
		remedy = "correct " + c.WebConfig + " or the address; it is tried again every " + again.String()
	}
	return &status.Condition{Code: Off, Severity: "warning", Text: err.Error(), Remedy: remedy}
}

// again is the pause after which a listener that failed is tried again; tests
// shorten it.
var again = time.Minute

// Run serves until ctx ends. A listener that cannot be opened, or a web
// configuration that is wrong, is told once as a condition and tried again
// every minute, so that a corrected file needs no restart; tell(nil) says that
// all is well. It never fails: metrics are no reason to stop a supervisor.
func Run(ctx context.Context, c Config, tell func(*status.Condition)) {
	opened := c.Listening
	c.Listening = func(a net.Addr) {
		tell(nil)
		if opened != nil {
			opened(a)
		}
	}
	var last string
	for {
		err := Serve(ctx, c)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			tell(condition(c, err))
			if err.Error() != last && c.Log != nil {
				c.Log(err.Error())
			}
			last = err.Error()
		}
		t := time.NewTimer(again)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}
