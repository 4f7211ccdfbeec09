// SPDX-License-Identifier: Apache-2.0

// Package engine is the only Docker client of the box. It turns the Engine API
// into the few values and calls the supervisor needs: what exists in one
// Compose project, what happened to it, and one act at a time.
//
// Every call has a deadline of its own, so that an engine that hangs becomes
// an error with a name and never a daemon that waits for ever. The package
// decides nothing: no order, no retry, no restart policy. It refuses engines
// that are older than MinAPI.
package engine

import (
	"errors"
	"net/netip"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// MinAPI is the oldest Engine API that works: 1.44 (Docker 25) is the first
// that takes several networks at create and a health check's start interval.
const MinAPI = "1.44"

// ErrUnreachable means that the engine did not answer at all: it is stopped,
// still starting, or its socket is missing.
var ErrUnreachable = errors.New("the Docker engine does not answer")

// ErrNotFound means that the engine answered and does not know the thing.
var ErrNotFound = errors.New("not found")

// Container is what the engine says about one container, running or not.
type Container struct {
	ID     string
	Name   string
	Labels map[string]string
	// Image is the reference the container was created with.
	Image string
	// State is the engine's word: "created", "running", "paused",
	// "restarting", "removing", "exited" or "dead".
	State     string
	ExitCode  int
	OOMKilled bool
	// Error is why the last start failed, "" where it did not.
	Error string
	// Started and Finished are the last start and end; zero before.
	Started  time.Time
	Finished time.Time
	// Health is "none", "starting", "healthy" or "unhealthy".
	Health string
	// HealthLog is the output of the last failing health check, shortened.
	HealthLog string
	// Volumes maps the target of each mounted volume to the volume's name.
	Volumes map[string]string
	// IPs are the addresses by which the host reaches it, none while it does
	// not run; the loopback on the host's network.
	IPs []netip.Addr
	// Limits are what can be changed of it while it runs.
	Limits Limits
	// SharesNetwork is the id of the container whose network it has, ""
	// where it has its own.
	SharesNetwork string
}

// Up reports whether the container's process exists.
func (c Container) Up() bool { return c.State == "running" || c.State == "paused" }

// Spec is a container as the engine shall create it.
type Spec struct {
	Name     string
	Config   container.Config
	Host     container.HostConfig
	Networks map[string]*network.EndpointSettings
}

// Network is a network as the engine shall create it or knows it.
type Network struct {
	Name       string
	Driver     string
	Options    map[string]string
	Internal   bool
	Attachable bool
	IPv4, IPv6 *bool
	IPAM       *network.IPAM
	Labels     map[string]string
}

// Volume is a volume as the engine shall create it or knows it.
type Volume struct {
	Name    string
	Driver  string
	Options map[string]string
	Labels  map[string]string
}

// Event is one thing that happened to a container of the project.
type Event struct {
	// Action is the engine's word: "create", "start", "die", "stop", "oom",
	// "destroy", "pause", "unpause", "health_status: healthy", ...
	Action    string
	Container string
	Service   string
	// Signal is the number a "kill" sent, "" for other actions.
	Signal string
	Time   time.Time
}
