// SPDX-License-Identifier: Apache-2.0

// Package supervise runs one stack on one engine: it creates what the Compose
// file describes, starts it in order, restarts what fails or is unhealthy, and
// says why. Observe -> decide -> act: observe.go, view.go and act.go talk to the
// engine, history.go and decide.go are pure and return a Plan that prints
// itself.
//
// Its inputs are a checked Compose project, images that the engine already
// resolves by digest, and the engine's events. It refuses a stack with a key
// it could only ignore, and it never takes a container of another project.
package supervise

import (
	"io/fs"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/compose/stack"
)

// Desired is the stack as it shall run: what Translate makes of a project.
type Desired struct {
	// Project is the Compose project name.
	Project string
	// Generation is the number one-shot completions are counted by.
	Generation int
	Networks   []engine.Network
	Volumes    []engine.Volume
	// ExternalNetworks and ExternalVolumes must exist; nobody creates them.
	ExternalNetworks []string
	ExternalVolumes  []string
	// Services in start order, dependencies first.
	Services []Service
	// Files the containers bind that are not in the stack folder as they
	// stand: inline configs, and files with an owner or mode of their own.
	Files []File
}

// Service is one service of the stack, with exactly one container.
type Service struct {
	Name string
	// Image is the pinned reference, NAME@DIGEST.
	Image string
	Spec  engine.Spec
	// Hash identifies the Spec and the bytes of the files it binds.
	Hash      string
	DependsOn []Dependency
	Restart   Restart
	// OneShot services run once per generation and then count as completed.
	OneShot bool
	// Grace is how long the service may take to end, at most.
	Grace time.Duration
	// Class says what the service is worth under pressure; "" is Normal.
	Class stack.Class
	// Sheddable services are stopped under pressure, the lowest ShedOrder
	// first, ties by name; a Critical service never is.
	Sheddable bool
	ShedOrder int
	// Probes are checks of our own, beside the container's health check.
	Probes []stack.Probe
	Hooks  Hooks
	// Update is how a container whose configuration changed is replaced:
	// StopFirst, which "" means too, or StartFirst.
	Update string
}

// Orders of a Service's update, in the words of the Compose specification.
const (
	// StopFirst ends and removes the old container, then makes the new one.
	StopFirst = "stop-first"
	// StartFirst waits for the new one to be well before the old one ends.
	// It is only for services without a read-write volume, a fixed host port
	// or a name of their own: the translation refuses or lowers the others.
	StartFirst = "start-first"
)

// Hooks are what a service wants done around its life.
type Hooks struct {
	// PreStart are init containers. They run to completion, one after the
	// other, before the first start of each new container of the service;
	// an exit code that is not 0 fails that start. Their names and labels are
	// the translation's; the supervisor removes them when they have ended well.
	PreStart []engine.Spec
	// PostStart commands run in the container after each start, in order; one
	// that fails fails the start. PreStop commands run before each stop that
	// the supervisor asks for; one that fails is journalled and the stop goes on.
	PostStart, PreStop []Hook
}

// Hook is a command that runs in the service's container.
type Hook struct {
	Command []string
	// User, WorkingDir and Env ("KEY=value") of the command; what is empty is
	// the container's.
	User, WorkingDir string
	Env              []string
	Privileged       bool
}

// Conditions of a Dependency, in the words of the Compose specification.
const (
	Started   = "service_started"
	Healthy   = "service_healthy"
	Completed = "service_completed_successfully"
)

// Dependency is one entry of depends_on.
type Dependency struct {
	Service   string
	Condition string
	// Required is false where the service may run without the other.
	Required bool
	// Restart asks to restart the dependent after the dependency was.
	Restart bool
}

// Restart is a service's restart policy.
type Restart struct {
	// Mode is "always", "on-failure", "unless-stopped" or "no".
	Mode string
	// Max is how many restarts in a row are tried; 0 is no limit.
	Max int
	// Delay is the least time before each restart.
	Delay time.Duration
	// Window is how long a container must be well for its failures to be
	// forgotten; 0 means ResetAfter.
	Window time.Duration
}

// File is a file the supervisor writes for containers to bind read-only.
type File struct {
	// Path on the box; its folder is private to root.
	Path string
	// Content, or the path to copy from where Content is nil.
	Content []byte
	From    string
	Mode    fs.FileMode
	// UID and GID own the file.
	UID, GID int
}

// service finds a service by name.
func (d *Desired) service(name string) *Service {
	for i := range d.Services {
		if d.Services[i].Name == name {
			return &d.Services[i]
		}
	}
	return nil
}
