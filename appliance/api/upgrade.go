// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
)

// The verbs of operations that change the release.
const (
	Upgrade  = "upgrade"
	Rollback = "rollback"
	Drill    = "drill"
)

// sourceTimeout is how long an answer may take for which a source of releases
// is asked.
const sourceTimeout = 10 * time.Minute

// Upgrades is a Control of a box that can have other releases. What is refused
// is a *Problem with status 422 and a code of package upgrade.
type Upgrades interface {
	// Upgrade, Rollback and Drill return once what was asked for is on disk.
	Upgrade(ctx context.Context, a upgrade.Ask) (status.Operation, error)
	Rollback(ctx context.Context, b upgrade.Back) (status.Operation, error)
	Drill(ctx context.Context, at string) (status.Operation, error)
	// CheckUpgrade and CheckRollback say what the two would do.
	CheckUpgrade(ctx context.Context, a upgrade.Ask) (upgrade.Checked, error)
	CheckRollback(ctx context.Context, b upgrade.Back) (upgrade.Checked, error)
	// CancelUpgrade ends what has not switched yet.
	CancelUpgrade(ctx context.Context) error
	// SetChannel follows another channel, "" the configuration's or the
	// release's again, and gives the one that is followed.
	SetChannel(channel string) (Channel, error)
	History() ([]status.UpgradeResult, error)
	// Why explains generation n, 0 for the last that did not go well.
	Why(n int) (upgrade.Why, error)
	Forecast(ctx context.Context) ([]upgrade.Outlook, error)
}

// Channel is what is followed.
type Channel struct {
	Channel string `json:"channel"`
	Source  string `json:"source"`
	// Set is true where `holdfast channel` has set it.
	Set bool `json:"set"`
}

// DrillAsk is what is asked of a drill; At is a window, "" for at once.
type DrillAsk struct {
	At string `json:"at,omitempty"`
}

func (h *handler) upgrades(mux *http.ServeMux, u Upgrades) {
	mux.HandleFunc("POST /v1/upgrade", asked(h, u.Upgrade))
	mux.HandleFunc("POST /v1/rollback", asked(h, u.Rollback))
	mux.HandleFunc("POST /v1/drill", asked(h, func(ctx context.Context, a DrillAsk) (status.Operation, error) { return u.Drill(ctx, a.At) }))
	mux.HandleFunc("POST /v1/upgrade/check", questioned(u.CheckUpgrade))
	mux.HandleFunc("POST /v1/rollback/check", questioned(u.CheckRollback))
	mux.HandleFunc("POST /v1/upgrade/cancel", questioned(func(ctx context.Context, _ struct{}) (struct{}, error) { return struct{}{}, u.CancelUpgrade(ctx) }))
	mux.HandleFunc("POST /v1/channel", questioned(func(_ context.Context, c Channel) (Channel, error) { return u.SetChannel(c.Channel) }))
	mux.HandleFunc("GET /v1/history", got(func(context.Context, url.Values) ([]status.UpgradeResult, error) { return u.History() }))
	mux.HandleFunc("GET /v1/forecast", got(func(ctx context.Context, _ url.Values) ([]upgrade.Outlook, error) { return u.Forecast(ctx) }))
	mux.HandleFunc("GET /v1/why", got(func(_ context.Context, q url.Values) (upgrade.Why, error) {
		n := 0
		if text := q.Get("generation"); text != "" {
			var err error
			if n, err = strconv.Atoi(text); err != nil || n < 1 {
				return upgrade.Why{}, bad("holdfast history lists them", "%.60q is no number of a generation", text)
			}
		}
		return u.Why(n)
	}, "generation"))
}

// body reads a request's JSON strictly; an empty one is the zero value.
func body[T any](r *http.Request) (v T, err error) {
	const mend = "see docs/upgrade.md"
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return v, bad("send it again", "the request can't be read: %v", err)
	}
	if len(b) > maxBody {
		return v, bad(mend, "the request has more than %d bytes", maxBody)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return v, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, bad(mend, "the request is not the JSON that is wanted: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, bad(mend, "something stands behind the request's JSON")
	}
	return v, nil
}

// asked begins an operation.
func asked[T any](h *handler, do func(context.Context, T) (status.Operation, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := body[T](r)
		if err == nil {
			_, err = query(r)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		h.accept(func(ctx context.Context) (status.Operation, error) { return do(ctx, v) })(w, r)
	}
}

// questioned answers a question that has a body.
func questioned[T, A any](do func(context.Context, T) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := body[T](r)
		if err == nil {
			_, err = query(r)
		}
		var a A
		if err == nil {
			a, err = do(r.Context(), v)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, a)
	}
}

// got answers a question without a body.
func got[A any](do func(context.Context, url.Values) (A, error), known ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := query(r, known...)
		var a A
		if err == nil {
			a, err = do(r.Context(), q)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, a)
	}
}

func post[A any](ctx context.Context, c *Client, path string, v any) (a A, err error) {
	b, err := json.Marshal(v)
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	err = c.ask(ctx, "POST", path, b, &a)
	return a, err
}

// Upgrade asks for an upgrade; it returns once the checks have passed and it
// is under way. What is refused is a *Problem with status 422.
func (c *Client) Upgrade(ctx context.Context, a upgrade.Ask) (status.Operation, error) {
	return post[status.Operation](ctx, c, "/v1/upgrade", a)
}

// CheckUpgrade says what Upgrade would do.
func (c *Client) CheckUpgrade(ctx context.Context, a upgrade.Ask) (upgrade.Checked, error) {
	return post[upgrade.Checked](ctx, c, "/v1/upgrade/check", a)
}

// CancelUpgrade ends what was asked for and has not switched yet.
func (c *Client) CancelUpgrade(ctx context.Context) error {
	_, err := post[struct{}](ctx, c, "/v1/upgrade/cancel", struct{}{})
	return err
}

// Rollback asks for the kept generation.
func (c *Client) Rollback(ctx context.Context, b upgrade.Back) (status.Operation, error) {
	return post[status.Operation](ctx, c, "/v1/rollback", b)
}

// CheckRollback says what Rollback would do.
func (c *Client) CheckRollback(ctx context.Context, b upgrade.Back) (upgrade.Checked, error) {
	return post[upgrade.Checked](ctx, c, "/v1/rollback/check", b)
}

// Drill asks for a drill, at a window or at once.
func (c *Client) Drill(ctx context.Context, at string) (status.Operation, error) {
	return post[status.Operation](ctx, c, "/v1/drill", DrillAsk{At: at})
}

// SetChannel follows another channel.
func (c *Client) SetChannel(ctx context.Context, channel string) (Channel, error) {
	return post[Channel](ctx, c, "/v1/channel", Channel{Channel: channel})
}

// History is how upgrades, rollbacks and drills ended, the newest first.
func (c *Client) History(ctx context.Context) ([]status.UpgradeResult, error) {
	return askSoon[[]status.UpgradeResult](ctx, c, "GET", "/v1/history", nil)
}

// Why explains generation n, 0 for the last that did not go well.
func (c *Client) Why(ctx context.Context, n int) (upgrade.Why, error) {
	path := "/v1/why"
	if n > 0 {
		path += "?generation=" + strconv.Itoa(n)
	}
	return askSoon[upgrade.Why](ctx, c, "GET", path, nil)
}

// Forecast says for each newer release whether it fits the box.
func (c *Client) Forecast(ctx context.Context) (list []upgrade.Outlook, err error) {
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	err = c.ask(ctx, "GET", "/v1/forecast", nil, &list)
	return list, err
}
