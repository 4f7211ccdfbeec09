// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/depot"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/stack"
	"github.com/holdfast/holdfast/compose/trust"
)

// askWithin bounds what is asked of a depot besides the release itself.
const askWithin = 2 * time.Minute

// open opens a depot with the box's proxy, limit and removable disks.
func (b *upgradeBox) open(ctx context.Context, ref string) (depot.Depot, error) {
	d, err := depot.Open(ctx, ref, depot.Options{Proxy: b.u.Proxy, Limit: b.Settings().Limit, Mount: b.mountStick})
	if err != nil {
		return nil, &upgrade.Unreachable{Ref: ref, Err: err}
	}
	return d, nil
}

// Targets implements upgrade.Releases.
func (b *upgradeBox) Targets(ctx context.Context, look upgrade.Look) ([]upgrade.Target, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var none, expires time.Time
	d, err := b.open(ctx, look.Ref)
	if err != nil {
		return nil, none, err
	}
	defer d.Close()
	sealed, err := os.ReadFile(b.u.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, none, &upgrade.Refused{Code: upgrade.CodeTrust, Why: "this box was baked without a root of trust (" + b.u.Root + "), it can trust no release",
			Remedy: "bake its release with keys (holdfast-release keys init) and install the disk image"}
	}
	if err != nil {
		return nil, none, err
	}
	store, err := openTrust(b.d.c.State, sealed)
	if err != nil {
		return nil, none, notTrusted(look.Ref, err)
	}
	least := time.Time{}
	if r, err := b.Running(); err == nil {
		least = time.Unix(r.Created, 0)
	}
	list, err := store.Refresh(ctx, d, trust.Options{Now: time.Now(), Least: least, AcceptExpired: look.AcceptExpired, Offline: d.Offline(),
		Log: func(text string) { b.d.say.line("trust: %s", text) }, Expires: func(at time.Time) { expires = at }})
	if err != nil {
		return nil, none, notTrusted(look.Ref, err)
	}
	var out []upgrade.Target
	for _, t := range list {
		out = append(out, upgrade.Target{Name: t.Name, Version: t.Version, Digest: t.Digest, Size: t.Size, Epoch: t.Epoch,
			MinFrom: t.MinFrom, Channels: t.Channels, Rollout: t.Rollout, Requirements: t.Requirements})
	}
	return out, expires, nil
}

// notTrusted sorts what a refresh failed by: metadata that were refused, or a
// depot that did not answer.
func notTrusted(ref string, err error) error {
	var refused *trust.Error
	if !errors.As(err, &refused) {
		return &upgrade.Unreachable{Ref: ref, Err: err}
	}
	remedy := "nothing was fetched and nothing has changed; take the release from the vendor's own source"
	if errors.Is(err, trust.ErrExpired) {
		remedy = "look whether the source is kept up and the clock of this box is right; --accept-expired takes it all the same"
	}
	return &upgrade.Refused{Code: upgrade.CodeTrust, Why: err.Error(), Remedy: remedy}
}

// Describe implements upgrade.Releases.
func (b *upgradeBox) Describe(ctx context.Context, ref string, t upgrade.Target) (upgrade.Candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	c := upgrade.Candidate{Target: t, Ref: ref}
	d, err := b.open(ctx, ref)
	if err != nil {
		return c, err
	}
	defer d.Close()
	manifest, err := blob(ctx, d, t.Digest, t.Size, release.MaxManifest)
	if err != nil {
		return c, err
	}
	config, layers, err := release.ParseManifest(manifest)
	if err != nil {
		return c, broken(t, err)
	}
	text, err := blob(ctx, d, config.Digest, config.Size, release.MaxDescription)
	if err != nil {
		return c, err
	}
	if c.Description, err = release.ParseDescription(text); err == nil {
		err = c.Description.Matches(layers)
	}
	if err != nil {
		return c, broken(t, err)
	}
	return c, nil
}

// broken is a release that is signed and can't be read all the same.
func broken(t upgrade.Target, err error) error {
	return &upgrade.Refused{Code: upgrade.CodeParts, Why: fmt.Sprintf("%s cannot be installed: %v", t, err), Remedy: "ask the vendor for a release that a box can install"}
}

// blob reads a small blob of a depot whole and holds it against its digest.
func blob(ctx context.Context, d depot.Depot, digest string, size, limit int64) ([]byte, error) {
	if size <= 0 || size > limit {
		return nil, &upgrade.Refused{Code: upgrade.CodeTrust, Why: fmt.Sprintf("%s is said to have %d bytes, at most %d are taken", digest, size, limit),
			Remedy: "ask the vendor for a release that a box can install"}
	}
	r, err := d.Blob(ctx, digest, 0, size)
	if err != nil {
		return nil, &upgrade.Unreachable{Ref: d.String(), Err: err}
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, size))
	if err == nil && int64(len(text)) != size {
		err = fmt.Errorf("%s ended after %d of %d bytes", digest, len(text), size)
	}
	if err != nil {
		return nil, &upgrade.Unreachable{Ref: d.String(), Err: err}
	}
	sum := sha256.Sum256(text)
	if "sha256:"+hex.EncodeToString(sum[:]) != digest {
		return nil, &upgrade.Refused{Code: upgrade.CodeTrust, Why: fmt.Sprintf("%s gives other bytes under %s than were signed", d, digest),
			Remedy: "nothing was changed; take the release from the vendor's own source"}
	}
	return text, nil
}

// installed opens a release on the box.
func (b *upgradeBox) installed(digest string) (*release.Release, error) {
	return Installed{Digest: digest, State: b.d.c.State, Root: b.u.Root, Factory: b.factory()}.open()
}

// factory is where the factory's layout lies, "" for nowhere.
func (b *upgradeBox) factory() string {
	if f, ok := b.d.c.Find.(Factory); ok {
		return f.Dir
	}
	return ""
}

// Installed implements upgrade.Releases.
func (b *upgradeBox) Installed(ctx context.Context, digest string) (release.Description, error) {
	if digest != "" {
		rel, err := b.installed(digest)
		if err != nil {
			return release.Description{}, err
		}
		return rel.Description(), nil
	}
	f, err := b.d.c.Find.Find(ctx)
	if err != nil {
		return release.Description{}, err
	}
	if f.Description == nil {
		return release.Description{}, errors.New("what the factory holds is no release")
	}
	return *f.Description, nil
}

// CheckConfig implements upgrade.Releases: the size that the configuration
// asks for must be one of the candidate's, and its guarantees must fit.
func (b *upgradeBox) CheckConfig(ctx context.Context, c upgrade.Candidate) ([]upgrade.Refused, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	d, err := b.open(ctx, c.Ref)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	manifest, err := blob(ctx, d, c.Digest, c.Size, release.MaxManifest)
	if err != nil {
		return nil, err
	}
	_, layers, err := release.ParseManifest(manifest)
	if err != nil {
		return nil, broken(c.Target, err)
	}
	tar, err := blob(ctx, d, layers[0].Digest, layers[0].Size, 64<<20)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(b.d.c.Run, "check-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := stack.Unpack(bytes.NewReader(tar), tmp); err != nil {
		return nil, broken(c.Target, err)
	}
	pins := map[string]string{}
	for _, im := range c.Description.Images {
		pins[im.Ref] = im.Digest
	}
	st, err := stack.Load(ctx, tmp, stack.Options{Digests: pins})
	if err != nil {
		return nil, broken(c.Target, err)
	}
	node, err := b.d.node(ctx, true)
	if err != nil {
		return nil, err
	}
	_, err = budget.For(st, b.d.size(), node)
	var no *budget.Refused
	switch {
	case errors.As(err, &no):
		return []upgrade.Refused{{Code: upgrade.CodeConfig, Why: fmt.Sprintf("%s would not start on this machine: %v", c.Target, err), Remedy: "do what stands below the table, then upgrade"}}, nil
	case err != nil:
		return []upgrade.Refused{{Code: upgrade.CodeConfig, Why: fmt.Sprintf("the configuration of this box does not go with %s: %v", c.Target, err),
			Remedy: "set `size` to one that both releases have, or leave it out (docs/configure.md); then reboot and upgrade"}}, nil
	}
	return nil, nil
}

// channelFile is what `holdfast channel` has set.
type channelFile struct {
	Channel string `json:"channel"`
}

func (d *Daemon) channelPath() string { return filepath.Join(d.c.State, "upgrade", "settings.json") }

// channel is what `holdfast channel` has set, "" for nothing.
func (d *Daemon) channel() string {
	var c channelFile
	text, err := os.ReadFile(d.channelPath())
	if err != nil || len(text) > 4096 || json.Unmarshal(text, &c) != nil {
		return ""
	}
	return strings.TrimSpace(c.Channel)
}
