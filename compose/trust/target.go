// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// Bounds of a target.
const (
	maxManifest = 4 << 20
	maxEpoch    = 1 << 31
	maxChannels = 16
)

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)
	versionForm = regexp.MustCompile(`^[0-9][0-9A-Za-z.+-]{0,99}$`)
	channelForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
	digestForm  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// custom is what a target says besides length and hash. Fields are in the
// order of their names.
type custom struct {
	Channels     []string        `json:"channels"`
	Digest       string          `json:"digest"`
	Epoch        int             `json:"epoch,omitempty"`
	Format       int             `json:"format"`
	MinFrom      string          `json:"min_from,omitempty"`
	Name         string          `json:"name"`
	Requirements json.RawMessage `json:"requirements,omitempty"`
	// Rollout is left out for everybody.
	Rollout *int   `json:"rollout,omitempty"`
	Version string `json:"version"`
}

// customFormat is what this program reads. A target of a later format is
// passed over: a box too old for it takes the release that leads to it.
const customFormat = 1

// check refuses a target that no release could have.
func (t Target) check() error {
	switch {
	case !nameForm.MatchString(t.Name):
		return fmt.Errorf("%q is no name of a release", t.Name)
	case !versionForm.MatchString(t.Version):
		return fmt.Errorf("%q is no version", t.Version)
	case !digestForm.MatchString(t.Digest):
		return fmt.Errorf("%q is no digest", t.Digest)
	case t.Size < 1 || t.Size > maxManifest:
		return fmt.Errorf("a manifest of %d bytes is none", t.Size)
	case t.Epoch < 0 || t.Epoch > maxEpoch:
		return fmt.Errorf("%d is no security epoch", t.Epoch)
	case t.MinFrom != "" && !versionForm.MatchString(t.MinFrom):
		return fmt.Errorf("%q is no version to come from", t.MinFrom)
	case t.Rollout < 0 || t.Rollout > 100:
		return fmt.Errorf("a rollout of %d%% is none", t.Rollout)
	case len(t.Channels) == 0 || len(t.Channels) > maxChannels:
		return fmt.Errorf("it is in %d channels", len(t.Channels))
	}
	for i, c := range t.Channels {
		if !channelForm.MatchString(c) || i > 0 && c <= t.Channels[i-1] {
			return fmt.Errorf("%q is no channel, or there twice", c)
		}
	}
	return nil
}

// encode makes the metadata of a target.
func (t Target) encode() (*tuf.TargetFiles, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	c := custom{
		Format: customFormat, Name: t.Name, Version: t.Version, Digest: t.Digest, Epoch: t.Epoch,
		Channels: t.Channels, MinFrom: t.MinFrom, Requirements: t.Requirements,
	}
	if t.Rollout != 100 {
		c.Rollout = &t.Rollout
	}
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	sum, err := hex.DecodeString(t.Digest[len("sha256:"):])
	if err != nil {
		return nil, err
	}
	raw := json.RawMessage(text)
	return &tuf.TargetFiles{Length: t.Size, Hashes: tuf.Hashes{"sha256": sum}, Custom: &raw}, nil
}

// targetsOf reads the releases that metadata lists, by name and path.
func targetsOf(file string, m *tuf.Metadata[tuf.TargetsType]) ([]Target, error) {
	var all []Target
	for path, f := range m.Signed.Targets {
		t, known, err := decode(path, f)
		if err != nil {
			return nil, refuse(ErrDamaged, file, fmt.Sprintf("%s lists a release %q that is none (%v): ask the vendor to sign it anew", file, path, err))
		}
		if known {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b Target) int { return cmp.Compare(a.Path(), b.Path()) })
	return all, nil
}

func decode(path string, f *tuf.TargetFiles) (t Target, known bool, err error) {
	if f == nil || f.Custom == nil {
		return t, false, fmt.Errorf("it says nothing of a release")
	}
	var format struct{ Format int }
	if err := json.Unmarshal(*f.Custom, &format); err != nil {
		return t, false, err
	}
	if format.Format > customFormat {
		return t, false, nil
	}
	var c custom
	if err := json.Unmarshal(*f.Custom, &c); err != nil {
		return t, false, err
	}
	t = Target{
		Name: c.Name, Version: c.Version, Digest: c.Digest, Size: f.Length, Epoch: c.Epoch,
		Channels: c.Channels, MinFrom: c.MinFrom, Rollout: 100, Requirements: c.Requirements,
	}
	if c.Rollout != nil {
		t.Rollout = *c.Rollout
	}
	if err := t.check(); err != nil {
		return t, false, err
	}
	if t.Path() != path {
		return t, false, fmt.Errorf("it is %s", t.Path())
	}
	if len(f.Hashes) != 1 || "sha256:"+hex.EncodeToString(f.Hashes["sha256"]) != t.Digest {
		return t, false, fmt.Errorf("its digest is not its hash")
	}
	return t, true, nil
}
