// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/status"
)

// answers is what the daemon that control plays says to the rest.
type answers struct {
	plan   status.Plan
	usages []status.Usage // one each time, the last again and again
	asked  []string
	// err refuses an operation, failed is how one ends.
	err    error
	failed string
	events []status.Event
	lines  []status.LogLine
}

func (a *answers) Plan() (status.Plan, error) { return a.plan, nil }

func (a *answers) Usage(context.Context) (status.Usage, error) {
	if len(a.usages) == 0 {
		return status.Usage{}, &api.Problem{Status: 501, Text: "nothing is measured here"}
	}
	u := a.usages[0]
	if len(a.usages) > 1 {
		a.usages = a.usages[1:]
	}
	return u, nil
}

func (a *answers) Do(_ context.Context, verb string, names []string) (status.Operation, error) {
	a.asked = append(a.asked, strings.TrimSpace(verb+" "+strings.Join(names, " ")))
	return status.Operation{ID: "x-1", Verb: verb, Services: names, State: "running"}, a.err
}

func (a *answers) Operation(id string) (status.Operation, <-chan struct{}, error) {
	done := make(chan struct{})
	close(done)
	op := status.Operation{ID: id, Verb: "restart", Services: []string{"web"}, State: "done", Error: a.failed}
	if a.failed != "" {
		op.State = "failed"
	}
	return op, done, nil
}

func (a *answers) Events(since int64) ([]status.Event, <-chan struct{}) {
	return a.events[min(int(since), len(a.events)):], make(chan struct{})
}

func (a *answers) Logs(ctx context.Context, q api.LogQuery, each func(status.LogLine) error) error {
	if len(q.Services) > 0 && q.Services[0] == "wbe" {
		return &api.Problem{Status: 404, Text: `the stack has no service "wbe"`, Remedy: "did you mean web?"}
	}
	for _, l := range a.lines {
		if err := each(l); err != nil {
			return err
		}
	}
	if q.Follow {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}
