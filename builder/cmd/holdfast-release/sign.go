// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/trust"
	"github.com/holdfast/holdfast/compose/version"
)

// offering are the flags that say who may take a release.
type offering struct {
	release  string
	layouts  []string
	channels []string
	rollout  int
	minFrom  string
}

func (o *offering) flags(cmd *cobra.Command, use string) {
	f := cmd.Flags()
	f.StringVar(&o.release, "release", "", use)
	f.StringArrayVar(&o.layouts, "layout", nil, "an OCI layout that has images which the release leaves out; may be given again")
	f.StringArrayVar(&o.channels, "channel", nil, "a channel it goes into; may be given again (default that of the release's update, else stable)")
	f.IntVar(&o.rollout, "rollout", 100, "how many boxes in a hundred take it by themselves")
	f.StringVar(&o.minFrom, "min-from", "", "the oldest version that boxes may come from (default the release's own)")
}

// target is what the list says of a release. What the flags leave open stays
// as it was signed before.
func (o *offering) target(cmd *cobra.Command, l *local, r *trust.Repository) (trust.Target, error) {
	t := trust.Target{
		Name: l.desc.Name, Version: l.desc.Version, Digest: l.digest, Size: int64(len(l.manifest)), Epoch: l.desc.Epoch,
		MinFrom: cmp.Or(o.minFrom, l.desc.MinFrom), Rollout: o.rollout, Channels: o.channels,
	}
	if v := t.MinFrom; v != "" && (!version.Valid(v) || version.Compare(v, t.Version) > 0) {
		return t, usageError{fmt.Errorf("--min-from: %q is no semantic version up to %s", v, t.Version)}
	}
	before, err := r.Releases()
	if err != nil {
		return t, err
	}
	for _, b := range before {
		if b.Path() != t.Path() {
			continue
		}
		if !cmd.Flags().Changed("rollout") {
			t.Rollout = b.Rollout
		}
		if o.channels == nil {
			t.Channels = b.Channels
		}
		if o.minFrom == "" {
			t.MinFrom = b.MinFrom
		}
	}
	if t.Channels == nil {
		t.Channels = []string{cmp.Or(l.desc.Update.Channel, "stable")}
	}
	slices.Sort(t.Channels)
	t.Channels = slices.Compact(t.Channels)
	if l.desc.Requirements != (release.Requirements{}) {
		if t.Requirements, err = json.Marshal(l.desc.Requirements); err != nil {
			return t, err
		}
	}
	return t, nil
}

// offer signs a release into the list, if it is not there already.
func (o *offering) offer(cmd *cobra.Command, l *local, r *trust.Repository) error {
	t, err := o.target(cmd, l, r)
	if err != nil {
		return err
	}
	// What is signed stays in the list, so every byte is read first.
	if known, err := r.Releases(); err != nil {
		return err
	} else if !slices.ContainsFunc(known, func(b trust.Target) bool { return b.Path() == t.Path() }) {
		for _, b := range l.blobs {
			if err := l.copyBlob(cmd.Context(), io.Discard, b); err != nil {
				return err
			}
		}
	}
	changed, err := r.Offer(cmd.Context(), t)
	if err != nil {
		return err
	}
	if changed && len(r.Waiting()) == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s is signed: epoch %d, rollout %d%%, channels %s\n", t.Path(), t.Epoch, t.Rollout, strings.Join(t.Channels, ", "))
	}
	return nil
}

func signCommand() *cobra.Command {
	var o signing
	var of offering
	var withdraw, renew []string
	cmd := &cobra.Command{
		Use: "sign", Short: "sign a release, take one back, or renew what expires", Args: noArgs,
		Long: `Signs with the keys that are at hand, in the folder of keys; nothing is published.
--release adds a release to the list, or changes what the list says of it.
--withdraw takes one from the list. --renew signs a role anew before it expires.
What waits for more signatures than one machine can give gets those of this one.
Snapshot and timestamp follow where their keys are at hand.

Same inputs and the same SOURCE_DATE_EPOCH make the same bytes.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "keys"); err != nil {
				return err
			}
			for _, role := range renew {
				if !slices.Contains([]string{trust.RoleTargets, trust.RoleSnapshot, trust.RoleTimestamp}, role) {
					return usageError{fmt.Errorf("--renew: %q is not targets, snapshot or timestamp; the root is renewed by keys rotate", role)}
				}
			}
			r, err := o.open()
			if err != nil {
				return err
			}
			defer o.close()
			if err := signList(cmd, r, of, withdraw, renew); err != nil {
				return err
			}
			return showKeys(r, o.keys, false, cmd.OutOrStdout())
		},
	}
	o.flags(cmd, true)
	of.flags(cmd, "the folder of a release to sign")
	cmd.Flags().StringArrayVar(&withdraw, "withdraw", nil, "NAME-VERSION of a release to take from the list; may be given again")
	cmd.Flags().StringArrayVar(&renew, "renew", nil, "a role to sign anew: targets, snapshot or timestamp; may be given again")
	return cmd
}

func signList(cmd *cobra.Command, r *trust.Repository, of offering, withdraw, renew []string) error {
	// What waits comes first: a second change would go by the old state.
	if len(r.Waiting()) > 0 {
		if err := settle(cmd.Context(), r, nil, cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	if of.release != "" {
		l, err := openLocal(of.release, of.layouts)
		if err != nil {
			return err
		}
		if err := of.offer(cmd, l, r); err != nil {
			return err
		}
	}
	for _, path := range withdraw {
		if err := r.Withdraw(cmd.Context(), path); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s is withdrawn: boxes that run it go on, no other takes it\n", path)
	}
	return settle(cmd.Context(), r, renew, cmd.ErrOrStderr())
}

// settle signs what follows. That the online keys are on another machine is
// no failure of signing here, unless it was asked for by name.
func settle(ctx context.Context, r *trust.Repository, renew []string, out io.Writer) error {
	err := r.Settle(ctx, renew...)
	if errors.Is(err, trust.ErrNoKey) && len(renew) == 0 {
		fmt.Fprintf(out, "still to do: %v\n", err)
		err = nil
	}
	report(r, out)
	return err
}
