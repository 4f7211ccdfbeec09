// SPDX-License-Identifier: Apache-2.0

//go:build engine

package fidelity

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/supervise"
)

// TestInitContainers runs init containers as the engine takes them: before
// the service's first start, on its volumes, the anonymous one too.
func TestInitContainers(t *testing.T) {
	c := newCase(t, `name: fid-init
services:
  web:
    image: `+ref+`
    command: [serve, --need, /scratch/line]
    volumes: [/scratch, "data:/data"]
    networks: {net: {ipv4_address: 172.31.9.7}}
    pre_start:
      - {command: [once, --file, /scratch/line]}
      - {command: [once, --need, /scratch/line, --file, /data/line], user: "0"}
    post_start: [{command: [/standin, once, --need, /data/line], environment: {A: b}}]
networks: {net: {ipam: {config: [{subnet: 172.31.9.0/24}]}}}
volumes: {data: {}}
`, os.DirFS(t.TempDir()))
	d := c.desired()
	cli, err := engine.Open(host)
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	act := func(op supervise.Op) string {
		t.Helper()
		id, err := supervise.Act(ctx, cli, d, op, nil)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	act(supervise.Op{Kind: supervise.CreateNetwork, Target: "fid-init_net"})
	act(supervise.Op{Kind: supervise.CreateVolume, Target: "fid-init_data"})
	web := act(supervise.Op{Kind: supervise.Create, Target: "web"})
	for _, init := range d.Services[0].Hooks.PreStart {
		id, err := cli.Create(ctx, init)
		if err == nil {
			err = cli.Start(ctx, id)
		}
		if err != nil {
			t.Fatal(err)
		}
		var end struct{ StatusCode int }
		c.do("POST", "/containers/"+id+"/wait", &end)
		if end.StatusCode != 0 {
			t.Errorf("%s ended with %d", init.Name, end.StatusCode)
		}
	}
	act(supervise.Op{Kind: supervise.Start, Target: "web", Container: web})
	hook := d.Services[0].Hooks.PostStart[0]
	r, err := cli.ExecCommand(ctx, web, engine.Command{Argv: hook.Command, Env: hook.Env, User: hook.User, WorkingDir: hook.WorkingDir})
	if err != nil || r.ExitCode != 0 {
		t.Errorf("post_start: %+v %v", r, err)
	}
}
