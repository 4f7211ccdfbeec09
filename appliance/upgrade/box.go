// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"encoding/json"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/release"
)

// Box is everything the machine does to the world. Every method that changes
// something may be called again after a crash at any moment in it, and then
// ends in the same state; what a crash leaves is said with each. The machine
// calls one changing method at a time.
type Box interface {
	Records
	Facts
	Releases
	Firmware
	Data
	Stack
	Ingress
	Watch
}

// Records keeps the generation record.
type Records interface {
	// Record reads it. An error means that neither copy can be read: nothing
	// is started then.
	Record() (slot.Record, error)
	// SaveRecord writes rec in the place of was: the only commit point. It is
	// ErrChanged where the record is another than was by now: others drop the
	// kept generation when room runs out. A crash in it leaves the old record or
	// the new one; when it returns the new one is on disk. Where was is rec it
	// is written once more, so that both copies hold it.
	SaveRecord(was, rec slot.Record) error
}

// Facts are what this boot and this machine are.
type Facts interface {
	// Root is the root file system that runs.
	Root() (slot.Root, error)
	// BootID of the kernel, "" never.
	BootID() string
	// MachineID is the box's /etc/machine-id: the seed of rollout and jitter.
	MachineID() string
	// Uptime since the kernel started (CLOCK_BOOTTIME).
	Uptime() time.Duration
	// Settings that the configuration and `holdfast channel` come to, as they
	// are now.
	Settings() Settings
	// Room is what the machine has for another release.
	Room(ctx context.Context) (Room, error)
	// Running is the description of the release that runs, as its supervisor
	// has verified it; an error before that.
	Running() (release.Description, error)
}

// Settings of upgrades.
type Settings struct {
	// Source as compose/depot takes it, Channel that is followed; "" for none.
	Source  string
	Channel string
	// Auto is true where releases are installed in Windows without a request;
	// else they are only looked for.
	Auto bool
	// Windows of maintenance, none means at any time.
	Windows []Window
	// Zone the windows are written in, nil for UTC.
	Zone *time.Location
	// Limit of the transfer in bytes per second, 0 for none.
	Limit int64
	// CheckEvery is how often the source is asked, 0 for the default.
	CheckEvery time.Duration
	// DrillEvery is how often a drill is done in a window, 0 for never.
	DrillEvery time.Duration
}

// Room of a machine, in bytes and thousandths of a core.
type Room struct {
	// Memory and CPUs of the machine; Data of the volume for disk budgets.
	Memory int64
	CPUs   int64
	Data   int64
	// State is what is free on the state volume, counting as free what would
	// be without the kept generation in KeptState.
	State     int64
	KeptState int64
	// Pool is what is free in the thin pool that data lies in, and Snapshot
	// what a trial's snapshot may grow to at most: the disk budgets' sum.
	Pool     int64
	KeptPool int64
	Snapshot int64
	// Slot is the size of the other root partition, ESP what is free there.
	Slot int64
	ESP  int64
	// Keys are the ids of the keys whose kernel images the firmware boots, nil
	// where it boots any or that is not known.
	Keys []string
}

// Target is a release as the trust metadata name it: nothing of the release
// itself was read for it.
type Target struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Digest of the release manifest, "sha256:<hex>", Size in bytes.
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	// Epoch is its security epoch, MinFrom the oldest version to come from.
	Epoch   int    `json:"epoch,omitempty"`
	MinFrom string `json:"min_from,omitempty"`
	// Channels it is in; Rollout percent of boxes that take it by themselves.
	Channels []string `json:"channels,omitempty"`
	Rollout  int      `json:"rollout"`
	// Requirements as release.Requirements, nil where they are not told; Keys
	// are the ids of those who signed its kernel image, if told.
	Requirements json.RawMessage `json:"requirements,omitempty"`
	Keys         []string        `json:"keys,omitempty"`
}

// String is "NAME VERSION".
func (t Target) String() string { return t.Name + " " + t.Version }

// Candidate is a release whose description was read and verified.
type Candidate struct {
	Target
	Description release.Description `json:"description"`
	// Ref is the depot it comes from.
	Ref string `json:"ref"`
}

// Look says how a source is asked.
type Look struct {
	// Ref of the depot.
	Ref string
	// AcceptExpired waives the age of metadata, and nothing else; it is logged.
	AcceptExpired bool
}

// Progress of a preparation.
type Progress struct {
	// Step for people, e.g. "fetching the root image".
	Step string `json:"step"`
	// Done of Total bytes, Reused of them from the box itself.
	Done   int64 `json:"done"`
	Total  int64 `json:"total"`
	Reused int64 `json:"reused"`
	// Rate in bytes per second, Left in seconds; 0 while unknown.
	Rate int64 `json:"rate,omitempty"`
	Left int64 `json:"left,omitempty"`
}

// Prepared is how a preparation went, in bytes.
type Prepared struct {
	Fetched int64 `json:"fetched"`
	Reused  int64 `json:"reused"`
}

// Releases finds and brings releases.
type Releases interface {
	// Targets refreshes trust from a depot and gives all releases it vouches
	// for. What it writes is the trust store alone, one durable file at a time.
	// The error is *Unreachable where the depot did not answer, *Refused with
	// code CodeTrust where what it said was not verified.
	Targets(ctx context.Context, look Look) (list []Target, expires time.Time, err error)
	// Describe reads a target's manifest and description, bounded and checked
	// by digest. It changes nothing.
	Describe(ctx context.Context, ref string, t Target) (Candidate, error)
	// Installed gives the description of a release that is on this box: the
	// committed or the kept one's. "" is the factory's.
	Installed(ctx context.Context, digest string) (release.Description, error)
	// Prepare brings all of a candidate onto the box, in a child process at
	// idle weight: where slot is not "" the other slot's bytes, verified, and
	// the kernel image, ready for PlaceTrial; the release folder; the images.
	// A crash leaves what was fetched, the next call goes on from there.
	// Nothing that runs, is committed or kept is changed; the caller has made
	// sure that the record names nothing in the slot.
	Prepare(ctx context.Context, c Candidate, slot string, report func(Progress)) (Prepared, error)
	// CheckConfig says why the box's configuration or what it is overridden
	// with does not go with the candidate; none where it does.
	CheckConfig(ctx context.Context, c Candidate) ([]Refused, error)
	// Free removes releases, images, engine stores and what was fetched that
	// neither the record nor also (digests on their way) names. A crash leaves
	// some of it, which the next call removes.
	Free(ctx context.Context, rec slot.Record, also []string) error
}

// Entry is a kernel image on the ESP.
type Entry struct {
	// Number in its name.
	Number int
	// Kept is true in EFI/holdfast, where no firmware looks; false in
	// EFI/Linux.
	Kept bool
	// Left and Done tries; both -1 without a counter.
	Left, Done int
	// RootHash that it boots, "" where it can't be read.
	RootHash string
}

// Counted is true for an image whose boots are counted: a trial's.
func (e Entry) Counted() bool { return e.Left >= 0 }

// Spent is true for a counted image that has no try left.
func (e Entry) Spent() bool { return e.Left == 0 }

// Firmware is what decides about the next boot. Images are placed under a
// temporary name and renamed: a crash leaves the old name, the new one, or a
// temporary file that no one boots.
type Firmware interface {
	// Entries lists what is there.
	Entries(ctx context.Context) ([]Entry, error)
	// PlaceTrial puts the kernel image of a trial that was prepared into
	// EFI/Linux with one try, under t's number; when it is there already, spent
	// or not, it gets its one try again.
	PlaceTrial(ctx context.Context, t slot.Trial) error
	// PlaceTrialFromKept does so with a copy of the kept generation's image.
	PlaceTrialFromKept(ctx context.Context, kept, number int) error
	// Rearm gives a spent image its one try again.
	Rearm(ctx context.Context, number int) error
	// Bless takes the counter off an image's name: from then on it boots.
	Bless(ctx context.Context, number int) error
	// Keep moves an image from EFI/Linux to EFI/holdfast.
	Keep(ctx context.Context, number int) error
	// RemoveEntry removes an image.
	RemoveEntry(ctx context.Context, e Entry) error
	// UpdateLoader puts the release's systemd-boot in both its places, one
	// after the other, each by rename; nothing where they hold it already.
	// digest "" is the factory's.
	UpdateLoader(ctx context.Context, digest string) error
	// Reboot begins an orderly reboot, or with force one that waits for
	// nothing; it returns once that was asked for. why goes to the journal and
	// the console.
	Reboot(ctx context.Context, why string, force bool) error
}

// Data is the volume that the services' data lie on.
type Data interface {
	// SwitchData unmounts the data and mounts that of the generation that the
	// record says shall run: the trial's where it needs no boot and has not
	// failed, as a fresh snapshot of its origin, else the committed one's. The
	// label follows. It refuses while a service runs. A crash leaves a volume
	// that the record names as the trial's and is made anew by the next call.
	// The origin is never mounted while the trial's is.
	SwitchData(ctx context.Context, rec slot.Record) error
	// SettleData sets the label to the committed generation and drops volumes
	// that the record does not name; without a trial only.
	SettleData(ctx context.Context, rec slot.Record) error
	// MountedData is the volume that is mounted, "" for none.
	MountedData(ctx context.Context) (string, error)
}

// Stack is the supervisor.
type Stack interface {
	// StopStack stops all services in order and removes their containers; it
	// returns when none is left. It holds until StartStack. It works also
	// before anything was started in this run of the daemon: what an earlier
	// run left is stopped then.
	StopStack(ctx context.Context) error
	// StartStack lets the supervisor run a generation's stack, after it has
	// opened and verified its release and loaded missing images. It returns
	// once that has begun; whether it gets healthy the reports say. With
	// trial, services that the stack declares external wait. It is called
	// again with trial false once that generation is committed: then those
	// that waited start and nothing else changes.
	StartStack(ctx context.Context, g slot.Generation, trial bool) error
}

// Ingress is who may reach the services.
type Ingress interface {
	// CloseIngress keeps all from outside away from the services, but not
	// from the admin's ports. When it returns no new connection gets in.
	CloseIngress(ctx context.Context) error
	// OpenIngress undoes that.
	OpenIngress(ctx context.Context) error
}

// Watch is what is known of the services.
type Watch interface {
	// Report gives the newest report, and a channel that is closed once there
	// is a newer one.
	Report() (status.Report, <-chan struct{})
	// Latency is the 95th percentile of the probes of each service over the
	// last minutes, services without probes left out.
	Latency() map[string]time.Duration
	// Evidence gives the last log lines of a service and what else explains
	// its state; nil where there is none.
	Evidence(ctx context.Context, service string) []status.Evidence
	// BootEvidence gives the last lines of the journal of a boot, of the
	// kernel and our own units; nil where none were kept.
	BootEvidence(ctx context.Context, bootID string) []status.Evidence
}
