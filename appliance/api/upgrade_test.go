// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
)

// changer is a control that notes what is asked about releases.
type changer struct{ *control }

func (c changer) Upgrade(_ context.Context, a upgrade.Ask) (status.Operation, error) {
	return c.note("upgrade " + a.Ref + a.Version)
}

func (c changer) Rollback(_ context.Context, b upgrade.Back) (status.Operation, error) {
	return c.note("rollback")
}
func (c changer) Drill(_ context.Context, at string) (status.Operation, error) {
	return c.note("drill " + at)
}

func (c changer) CheckUpgrade(context.Context, upgrade.Ask) (upgrade.Checked, error) {
	_, err := c.note("check")
	return upgrade.Checked{Current: true}, err
}

func (c changer) CheckRollback(context.Context, upgrade.Back) (upgrade.Checked, error) {
	_, err := c.note("check back")
	return upgrade.Checked{}, err
}
func (c changer) CancelUpgrade(context.Context) error { _, err := c.note("cancel"); return err }
func (c changer) SetChannel(name string) (Channel, error) {
	_, err := c.note("channel " + name)
	return Channel{Channel: name}, err
}

func (c changer) History() ([]status.UpgradeResult, error) {
	return []status.UpgradeResult{{Result: "committed"}}, c.err
}
func (c changer) Why(n int) (upgrade.Why, error) {
	return upgrade.Why{Result: status.UpgradeResult{Generation: n}}, c.err
}
func (c changer) Forecast(context.Context) ([]upgrade.Outlook, error) { return nil, c.err }

func TestReleases(t *testing.T) {
	c := changer{&control{}}
	client, _, _ := served(t, c)
	ctx := t.Context()
	if op, err := client.Upgrade(ctx, upgrade.Ask{Ref: "https://r.example", Version: "1.1.0"}); err != nil || op.ID != "x-1" {
		t.Errorf("%+v %v", op, err)
	}
	if _, err := client.Rollback(ctx, upgrade.Back{}); err != nil {
		t.Error(err)
	}
	if _, err := client.Drill(ctx, "window"); err != nil {
		t.Error(err)
	}
	if x, err := client.CheckUpgrade(ctx, upgrade.Ask{}); err != nil || !x.Current {
		t.Errorf("%+v %v", x, err)
	}
	if _, err := client.CheckRollback(ctx, upgrade.Back{}); err != nil {
		t.Error(err)
	}
	if err := client.CancelUpgrade(ctx); err != nil {
		t.Error(err)
	}
	if x, err := client.SetChannel(ctx, "beta"); err != nil || x.Channel != "beta" {
		t.Errorf("%+v %v", x, err)
	}
	if got := strings.Join(c.asked, ", "); got != "upgrade https://r.example1.1.0, rollback, drill window, check, check back, cancel, channel beta" {
		t.Errorf("asked for %s", got)
	}
	if l, err := client.History(ctx); err != nil || len(l) != 1 {
		t.Errorf("%+v %v", l, err)
	}
	if y, err := client.Why(ctx, 3); err != nil || y.Result.Generation != 3 {
		t.Errorf("%+v %v", y, err)
	}
	if _, err := client.Forecast(ctx); err != nil {
		t.Error(err)
	}
	c.err = &Problem{Status: http.StatusUnprocessableEntity, Code: "epoch", Text: "too old", Remedy: "take another"}
	var p *Problem
	if _, err := client.Upgrade(ctx, upgrade.Ask{}); !errors.As(err, &p) || p.Status != 422 || p.Code != "epoch" {
		t.Errorf("%v", err)
	}
}

// FuzzReleases: what can't be read is refused with what to do, and nothing is
// begun.
func FuzzReleases(f *testing.F) {
	for _, s := range []string{`upgrade|{"ref":"usb:","version":"1"}`, `upgrade|{"x":1}`, `upgrade|{} {}`, `rollback|{"to":2}`, `drill|{"at":"Sun 02:00-04:00"}`, "channel|[]", "why?generation=x|", "history?x=1|", "upgrade/check|null"} {
		path, body, _ := strings.Cut(s, "|")
		f.Add("POST", path, body)
		f.Add("GET", path, body)
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		target := "/v1/" + path
		req, err := http.NewRequest(method, "http://holdfast"+target, strings.NewReader(body))
		if err != nil || method != "GET" && method != "POST" || strings.Contains(target, "watch") || strings.Contains(target, "follow=1") || strings.Contains(target, "wait=1") {
			return
		}
		c := changer{&control{more: make(chan struct{}), done: make(chan struct{})}}
		w := httptest.NewRecorder()
		Handler(status.NewFeed(status.Report{}), c).ServeHTTP(w, req)
		text, _ := io.ReadAll(w.Result().Body)
		switch {
		case w.Code == 400:
			var p Problem
			if json.Unmarshal(text, &p) != nil || p.Text == "" || p.Remedy == "" || len(c.asked) > 0 {
				t.Errorf("%s %q %q: %s, asked for %v", method, target, body, text, c.asked)
			}
		case w.Code >= 500:
			t.Errorf("%s %q: %d %s", method, target, w.Code, text)
		}
	})
}
