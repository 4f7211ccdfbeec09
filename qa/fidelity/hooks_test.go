// SPDX-License-Identifier: Apache-2.0

//go:build engine

package fidelity

import (
	"context"
	"os"
	"strings"
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
  bad:
    image: `+ref+`
    command: [serve]
    post_start: [{command: [/standin, once, --need, /nowhere], user: "0", environment: {A: b}}]
networks: {net: {ipam: {config: [{subnet: 172.31.9.0/24}]}}}
volumes: {data: {}}
`, os.DirFS(t.TempDir()))
	d := c.desired()
	cli, err := engine.Open(host)
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	act := func(op supervise.Op) string {
		t.Helper()
		id, err := supervise.Act(ctx, cli, d, op, nil)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	status := func(id string) string {
		var state struct{ State struct{ Status string } }
		c.do("GET", "/containers/"+id+"/json", &state)
		return state.State.Status
	}
	act(supervise.Op{Kind: supervise.CreateNetwork, Target: "fid-init_default"})
	act(supervise.Op{Kind: supervise.CreateNetwork, Target: "fid-init_net"})
	act(supervise.Op{Kind: supervise.CreateVolume, Target: "fid-init_data"})
	web := act(supervise.Op{Kind: supervise.Create, Target: "web"})
	act(supervise.Op{Kind: supervise.Start, Target: "web", Container: web, Init: true, Grace: 10 * time.Second})
	if got := status(web); got != "running" {
		t.Errorf("the service is %s", got)
	}
	// The init containers have ended well, so they are gone.
	if l := c.list("containers", c.name); len(l) != 1 {
		t.Errorf("%d containers are left: %v", len(l), l)
	}
	// A command that fails after the start ends the container again.
	bad := act(supervise.Op{Kind: supervise.Create, Target: "bad"})
	_, err = supervise.Act(ctx, cli, d, supervise.Op{Kind: supervise.Start, Target: "bad", Container: bad, Grace: 10 * time.Second}, nil)
	if err == nil || !strings.Contains(err.Error(), "exit code 9") {
		t.Errorf("post_start: %v", err)
	}
	if got := status(bad); got != "exited" {
		t.Errorf("the service whose post_start failed is %s", got)
	}
}
