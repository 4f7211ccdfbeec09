// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/images/durable"
)

var _ api.Upgrades = (*Daemon)(nil)

// change begins an upgrade, a rollback or a drill, and makes an operation of
// it that ends with its result. What is refused is no operation.
func (d *Daemon) change(ctx context.Context, verb string, begin func(*upgrade.Machine) (upgrade.Checked, error)) (status.Operation, error) {
	m, err := d.upgrades()
	if err != nil {
		return status.Operation{}, err
	}
	// It goes on where whoever asked for it goes away, once it is on disk.
	c, err := begin(m)
	if err != nil {
		return status.Operation{}, problem(err)
	}
	op, end, err := d.operations.begin(verb, nil)
	if err != nil {
		return op, err
	}
	if c.Candidate == nil && c.Current {
		end(nil)
		return d.operations.note(op.ID, func(o *status.Operation) {
			o.Notes = append(c.Notes, "this box has the newest release that it may have")
		}), nil
	}
	op = d.operations.note(op.ID, func(o *status.Operation) { o.Notes = c.Notes })
	d.finish(end, func(ctx context.Context) error {
		result, err := m.Wait(ctx)
		if result != nil && result.End.Before(op.Started) {
			result = nil // an older one: this one waits for its window, or for an admin
		}
		if result != nil {
			d.operations.note(op.ID, func(o *status.Operation) { o.Result = result })
		}
		return failed(result, err)
	})
	return op, nil
}

// failed is why an operation counts as failed.
func failed(r *status.UpgradeResult, err error) error {
	switch {
	case err != nil:
		return problem(err)
	case r == nil, r.Result == "committed", r.Result == "passed":
		return nil
	case r.Why != "":
		return fmt.Errorf("%s: %s", r.Result, r.Why)
	}
	return errors.New(r.Result)
}

// Upgrade implements api.Upgrades, as do the following.
func (d *Daemon) Upgrade(ctx context.Context, a upgrade.Ask) (status.Operation, error) {
	return d.change(ctx, api.Upgrade, func(m *upgrade.Machine) (upgrade.Checked, error) { return m.Upgrade(ctx, a) })
}

// Rollback begins a trial of the kept generation.
func (d *Daemon) Rollback(ctx context.Context, b upgrade.Back) (status.Operation, error) {
	return d.change(ctx, api.Rollback, func(m *upgrade.Machine) (upgrade.Checked, error) { return m.Rollback(ctx, b) })
}

// Drill begins a drill.
func (d *Daemon) Drill(ctx context.Context, at string) (status.Operation, error) {
	return d.change(ctx, api.Drill, func(m *upgrade.Machine) (upgrade.Checked, error) { return m.Drill(ctx, at) })
}

// CheckUpgrade says what Upgrade would do.
func (d *Daemon) CheckUpgrade(ctx context.Context, a upgrade.Ask) (upgrade.Checked, error) {
	m, err := d.upgrades()
	if err != nil {
		return upgrade.Checked{}, err
	}
	c, err := m.Check(ctx, a)
	return c, problem(err)
}

// CheckRollback says what Rollback would do.
func (d *Daemon) CheckRollback(ctx context.Context, b upgrade.Back) (upgrade.Checked, error) {
	m, err := d.upgrades()
	if err != nil {
		return upgrade.Checked{}, err
	}
	c, err := m.CheckRollback(ctx, b)
	return c, problem(err)
}

// CancelUpgrade ends what has not switched yet.
func (d *Daemon) CancelUpgrade(ctx context.Context) error {
	m, err := d.upgrades()
	if err != nil {
		return err
	}
	return problem(m.Cancel(ctx))
}

// SetChannel follows another channel.
func (d *Daemon) SetChannel(channel string) (api.Channel, error) {
	m, err := d.upgrades()
	if err != nil {
		return api.Channel{}, err
	}
	if channel != "" {
		if why := config.CheckChannel(channel); why != "" {
			return api.Channel{}, &api.Problem{Status: http.StatusBadRequest, Text: why, Remedy: "holdfast channel --help"}
		}
	}
	text, err := json.Marshal(channelFile{Channel: channel})
	if err != nil {
		return api.Channel{}, err
	}
	if err := os.MkdirAll(filepath.Dir(d.channelPath()), 0o700); err != nil {
		return api.Channel{}, err
	}
	if err := durable.WriteFile(d.channelPath(), append(text, '\n'), 0o600); err != nil {
		return api.Channel{}, fmt.Errorf("the channel can't be kept: %w; make room on the state volume", err)
	}
	d.upgradeChanged()
	u := m.Status()
	return api.Channel{Channel: u.Channel, Source: u.Source, Set: channel != ""}, nil
}

// History is how upgrades, rollbacks and drills ended.
func (d *Daemon) History() ([]status.UpgradeResult, error) {
	m, err := d.upgrades()
	if err != nil {
		return nil, err
	}
	return orNone(m.History()), nil
}

// Why explains one result.
func (d *Daemon) Why(n int) (upgrade.Why, error) {
	m, err := d.upgrades()
	if err != nil {
		return upgrade.Why{}, err
	}
	w, err := m.Why(n)
	if err != nil {
		return w, &api.Problem{Status: http.StatusNotFound, Text: err.Error(), Remedy: "holdfast history lists what there was"}
	}
	return w, nil
}

// Forecast looks at newer releases.
func (d *Daemon) Forecast(ctx context.Context) ([]upgrade.Outlook, error) {
	m, err := d.upgrades()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	list, err := m.Forecast(ctx)
	return orNone(list), problem(err)
}
