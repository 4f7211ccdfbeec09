// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/settings"
)

// configLocal is the step before the network: nothing that reads what it
// writes runs yet.
func configLocal(ctx context.Context, env firstboot.Env) error {
	e := config.Local(ctx, config.Env{Root: env.Root, Run: firstboot.Commands{}, Out: env.Out})
	return apply(ctx, env, e)
}

// configFull is the step after it. Only a cloud's metadata service is waited
// for, and with a deadline.
func configFull(ctx context.Context, env firstboot.Env) error {
	e := config.Full(ctx, config.Env{
		Root: env.Root, Run: firstboot.Commands{}, Out: env.Out,
		WaitNetwork: func(ctx context.Context) error { return settings.WaitNetwork(ctx, settingsEnv(env)) },
	})
	return apply(ctx, env, e)
}

// apply goes on where the configuration could not be written down: the box is
// to be reachable, and status says what is wrong.
func apply(ctx context.Context, env firstboot.Env, e config.Effective) error {
	return settings.Join(settings.Apply(ctx, settingsEnv(env), e), e.Failed)
}

func settingsEnv(env firstboot.Env) settings.Env {
	return settings.Env{Root: env.Root, Run: firstboot.Commands{}, Out: env.Out}
}
