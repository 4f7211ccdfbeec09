// SPDX-License-Identifier: Apache-2.0

// Package status is the JSON contract of what a box says about itself: the
// report behind `holdfast status --json`, the API and the exporter, and the
// one list of conditions. It is a leaf: it imports nothing of ours.
package status

import "time"

// Report is the state of a box at one moment. Field names are a contract:
// they are added to, never renamed.
type Report struct {
	// Release is what runs; zero before the first release is loaded.
	Release Release `json:"release"`
	// Generation is the number of the (OS, stack, data) triple that runs.
	Generation int `json:"generation"`
	// Slot is "A" or "B", the root partition this boot came from; empty
	// where the daemon does not run on a Holdfast box.
	Slot string `json:"slot"`
	// Root says what the root file system is.
	Root Root `json:"root"`
	// BootID and MachineID identify this boot and this box.
	BootID    string `json:"boot_id"`
	MachineID string `json:"machine_id"`
	// Hostname is the box's name, "" while it has none.
	Hostname string `json:"hostname"`
	// Platform is where the box runs, as its firmware says: "ec2", "gce",
	// "vmware", "qemu" and so on; empty where the daemon does not run on a
	// Holdfast box.
	Platform string `json:"platform"`
	// Addresses of the network cards, never of Docker's bridges.
	Addresses []Address `json:"addresses"`
	// URLs at which the stack answers browsers, by the ports 443 and 80 that
	// it publishes; empty for a stack that publishes neither.
	URLs []string `json:"urls"`
	// Config says where the box's configuration came from.
	Config Config `json:"config"`
	// SSH says whether and how admins get in.
	SSH SSH `json:"ssh"`
	// Data says where the data of the services lives, nil before that is known.
	Data *DataDisk `json:"data,omitempty"`
	// Stack is "starting", "healthy", "degraded", "held", "stopping" or
	// "stopped".
	Stack string `json:"stack"`
	// Services in start order.
	Services []Service `json:"services"`
	// Engine is the container engine, nil before it was asked.
	Engine *Engine `json:"engine,omitempty"`
	// Budget is the machine's side of the services' budgets, nil before that
	// is known.
	Budget *NodeBudget `json:"budget,omitempty"`
	// Pressure is what the box lacks now, nil where nothing watches it.
	Pressure *PressureState `json:"pressure,omitempty"`
	// Upgrade says what is known of other releases, nil where the box can have
	// none.
	Upgrade *Upgrade `json:"upgrade,omitempty"`
	// Allowances are what services have that is refused elsewhere; empty as a
	// rule.
	Allowances []Allowance `json:"allowances"`
	// Conditions that need attention, most severe first; empty when well.
	Conditions []Condition `json:"conditions"`
	// Timings of this boot.
	Timings Timings `json:"timings"`
	// Now is the box's clock when the report was made.
	Now time.Time `json:"now"`
}

// Release names the release that runs.
type Release struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// OS is the version of the OS image, from its content.
	OS string `json:"os"`
}

// Root describes the mounted root.
type Root struct {
	// Hash is the dm-verity root hash on the kernel command line.
	Hash string `json:"hash"`
	// Verified is true when the mounted root is the dm-verity device with
	// that hash and the kernel has seen no corrupted block.
	Verified bool `json:"verified"`
	ReadOnly bool `json:"read_only"`
}

// Address is one address of one network card.
type Address struct {
	// Interface is the card's name, e.g. "ens192".
	Interface string `json:"interface"`
	// Address without prefix, IPv4 or global IPv6.
	Address string `json:"address"`
	// Prefix is its length in bits.
	Prefix int `json:"prefix"`
}

// Config says what the box was configured by. It holds no values: some are
// secret.
type Config struct {
	// Sources that were asked, the one that counts most last; empty before
	// any was.
	Sources []ConfigSource `json:"sources"`
	// Origin names the source of each top-level key, e.g. "network".
	Origin map[string]string `json:"origin"`
}

// ConfigSource is one place a configuration may come from.
type ConfigSource struct {
	// Name is "file", "ovf", "ec2", "ec2-key", "gce" or "smbios".
	Name string `json:"name"`
	// Where is the place in the source, for people.
	Where string `json:"where"`
	// State is "applied", "refused", "absent", "unreachable", "kept" (the last
	// good one is used in its place, Why says why) or "waiting" (for the
	// network).
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
	// Text is a note, such as why it is unreachable.
	Text string `json:"text,omitempty"`
	// Problems are what was refused, one sentence each with its line.
	Problems []string `json:"problems"`
}

// SSH is the admin's way in.
type SSH struct {
	// Enabled is true where at least one key is authorized and a host key is
	// there.
	Enabled bool `json:"enabled"`
	// HostKey is the host key's fingerprint, "SHA256:...", "" without one.
	HostKey string `json:"host_key"`
	// Keys are the fingerprints of the keys that may log in as root.
	Keys []string `json:"keys"`
}

// Service is one service of the stack.
type Service struct {
	Name string `json:"name"`
	// Image is the pinned reference, NAME@DIGEST.
	Image string `json:"image"`
	// Container is the engine's container id, "" where there is none.
	Container string `json:"container"`
	// ContainerName is that container's name, e.g. "demo-web-1", "" where
	// there is none.
	ContainerName string `json:"container_name,omitempty"`
	// State is "waiting", "created", "running", "exited", "completed"
	// (a one-shot that ended with 0), "backoff", "crash-loop", "held", "shed"
	// (stopped under pressure), "stopped" (on request), "paused" (by hand) or
	// "unknown" (the engine does not answer).
	State string `json:"state"`
	// Health is "healthy", "unhealthy", "starting" or "none".
	Health string `json:"health"`
	// Restarts since the daemon adopted or created the container, over all
	// boots of this generation.
	Restarts int `json:"restarts"`
	// RestartsBy counts the same restarts by their cause: one of
	// RestartReasons. Nil while there was none.
	RestartsBy map[string]int `json:"restarts_by,omitempty"`
	// Failures in a row, 0 once the service has been well for long enough.
	Failures int `json:"failures"`
	// NextTry is when a service in backoff is started again, zero elsewhere.
	NextTry time.Time `json:"next_try,omitzero"`
	// Since is when State was entered.
	Since time.Time `json:"since"`
	// Reason is one sentence why the service is not running and healthy.
	Reason string `json:"reason,omitempty"`
	// Class is "critical", "normal" or "best-effort".
	Class string `json:"class,omitempty"`
	// OneShot services end by themselves and run once per generation.
	OneShot bool `json:"one_shot,omitempty"`
	// Budget is what the service is guaranteed and may use, nil before that
	// is known.
	Budget *ServiceBudget `json:"budget,omitempty"`
	// Probes are the supervisor's own checks of the service with their newest
	// results.
	Probes []Probe `json:"probes,omitempty"`
}

// RestartReasons are the causes that Service.RestartsBy counts: "exit" (its
// main process ended), "oom" (by the kernel, for memory), "unhealthy" (its
// checks failed), "changed" (its definition), "dependency" (what it depends on
// was started anew), "drift" (somebody changed or removed the container),
// "request" (an admin asked), "pressure" (brought back after it was shed) and
// "other". The list is closed: it bounds the series of a metric.
func RestartReasons() []string {
	return []string{"exit", "oom", "unhealthy", "changed", "dependency", "drift", "request", "pressure", "other"}
}

// Probe is one check of the supervisor's own.
type Probe struct {
	// Kind is "http", "tcp", "exec" or "uptime".
	Kind string `json:"kind"`
	// Health is "starting", "healthy" or "unhealthy", since Since.
	Health string    `json:"health"`
	Since  time.Time `json:"since,omitzero"`
	// Output of the last check, for people.
	Output string `json:"output,omitempty"`
}

// Timings are seconds since the kernel started (CLOCK_BOOTTIME), 0 while the
// event has not happened in this boot.
type Timings struct {
	DaemonStarted float64 `json:"daemon_started"`
	ImagesLoaded  float64 `json:"images_loaded"`
	StackHealthy  float64 `json:"stack_healthy"`
}

// Condition is one thing an admin should know, with what to do about it.
type Condition struct {
	// Code is a short stable name, e.g. "factory-image-corrupt".
	Code string `json:"code"`
	// Severity is "info", "warning" or "critical".
	Severity string `json:"severity"`
	Text     string `json:"text"`
	// Remedy is a command or an act, never empty.
	Remedy string `json:"remedy"`
}
