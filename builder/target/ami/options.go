// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"time"
)

// Access says with whose rights and where AWS is called. What is left empty
// comes from the SDK's usual chain: environment, shared files, container and
// instance roles.
type Access struct {
	Region, Profile             string
	AccessKey, SecretKey, Token string
	// RoleARN is a role to take on; RoleSession and ExternalID go with it.
	RoleARN, RoleSession, ExternalID string
	// EC2 and EBS replace the endpoints of the two services.
	EC2, EBS string
	// AnyRegion leaves out the check that Region looks like one.
	AnyRegion bool
}

// Options are what a user may say about an AMI. Comments name the key of the
// post-processor, which is also how errors start.
type Options struct {
	Access

	// Name (ami_name) is unique per account and region; "" is the release.
	Name string
	// Description (ami_description) goes to image and snapshot.
	Description string
	// Tags (tags) go to the images, SnapshotTags (snapshot_tags) to their
	// snapshots, in every region.
	Tags, SnapshotTags map[string]string

	// Size (size) is the profile that VolumeGiB (volume_size) comes from when
	// it is 0: the system disk of a machine in GiB.
	Size      string
	VolumeGiB int64
	// VolumeType (volume_type) is "gp3" when empty; IOPS (iops) and Throughput
	// in MiB/s (throughput) are AWS's own when 0.
	VolumeType       string
	IOPS, Throughput int64
	// KeepVolume is true when the system disk shall outlive its machine
	// (delete_on_termination = false).
	KeepVolume bool

	// Encrypt (encrypt_boot) encrypts the snapshot, with KMSKey (kms_key_id),
	// or else the account's own key for EBS. RegionKMSKeys
	// (region_kms_key_ids) are the keys of copies by region.
	Encrypt       bool
	KMSKey        string
	RegionKMSKeys map[string]string

	// Regions (ami_regions) get copies.
	Regions []string
	// Users, Groups, OrgARNs, OUARNs (ami_users, ami_groups, ami_org_arns,
	// ami_ou_arns) may launch the images; SnapshotUsers and SnapshotGroups
	// (snapshot_users, snapshot_groups) may make volumes of the snapshots.
	Users, Groups, OrgARNs, OUARNs []string
	SnapshotUsers, SnapshotGroups  []string
	// DeprecateAt (deprecate_at) is a time in RFC 3339; "" is never.
	DeprecateAt string

	// ForceDeregister (force_deregister) replaces own images of that name,
	// ForceDeleteSnapshot (force_delete_snapshot) also deletes their snapshots.
	ForceDeregister, ForceDeleteSnapshot bool

	// UefiData (uefi_data) is base64 of a variable store with Secure Boot keys.
	UefiData string

	// Parent (parent_snapshot_id) is the snapshot to upload on top of: its id,
	// Last, or "" for a full upload.
	Parent string
	// SkipCreate (skip_create_ami) stops after the snapshot.
	SkipCreate bool

	// Cache is the folder for the state of uploads; "" is builder.CacheDir.
	Cache string
	// Patience is how long things may take; the zero value is the default.
	Patience Patience
}

// Last as Options.Parent is the newest snapshot that an upload of a release of
// the same name made in the region, if there is one.
const Last = "last"

// Patience is how long things may take. Every wait has a deadline, and says at
// its end what it waited for.
type Patience struct {
	// Read is for the first byte of an answer, Attempt for one request as a
	// whole.
	Read, Attempt time.Duration
	// Call is for one EC2 call with its retries; Block is how long blocks may
	// fail without a single one getting through.
	Call, Block time.Duration
	// Missing is how long after its start a snapshot may be unknown to a part
	// of EBS (https://github.com/awslabs/coldsnap/issues/43: the EBS team
	// named two minutes).
	Missing time.Duration
	// Backoff is the longest wait after a first failure; it doubles up to
	// MaxBackoff. Poll is between two looks at a state, doubling up to MaxPoll.
	Backoff, MaxBackoff, Poll, MaxPoll time.Duration
	// Snapshot is for a snapshot to be complete, Image for an image to be
	// available (snapshot_timeout, image_timeout), Copy for a copy
	// (copy_timeout).
	Snapshot, Image, Copy time.Duration
	// Cleanup is for removing what a failed or interrupted run made. It is
	// less than what the plugin has left when Packer is gone.
	Cleanup time.Duration
	// Tries bounds the attempts at one block while others get through.
	Tries int
}

func (p Patience) orDefault() Patience {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&p.Read, 12*time.Second)
	def(&p.Attempt, 20*time.Second)
	def(&p.Call, 2*time.Minute)
	def(&p.Block, 4*time.Minute)
	def(&p.Missing, 2*time.Minute)
	def(&p.Backoff, 400*time.Millisecond)
	def(&p.MaxBackoff, 10*time.Second)
	def(&p.Poll, time.Second)
	def(&p.MaxPoll, 15*time.Second)
	def(&p.Snapshot, 15*time.Minute)
	def(&p.Image, 15*time.Minute)
	def(&p.Copy, 2*time.Hour)
	def(&p.Cleanup, 45*time.Second)
	if p.Tries == 0 {
		p.Tries = 30
	}
	return p
}

// shared is true when anyone but the own account gets at the images.
func (o Options) shared() bool {
	return len(o.Users)+len(o.OrgARNs)+len(o.OUARNs)+len(o.SnapshotUsers) > 0 || o.public()
}

// public is true when everyone does.
func (o Options) public() bool { return len(o.Groups)+len(o.SnapshotGroups) > 0 }

// key of the copy in a region, "" for the account's own.
func (o Options) keyIn(region string) string {
	if region == o.Region && o.RegionKMSKeys[region] == "" {
		return o.KMSKey
	}
	return o.RegionKMSKeys[region]
}
