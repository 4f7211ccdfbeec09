// SPDX-License-Identifier: Apache-2.0

// Package ami makes a baked disk into an Amazon Machine Image: the data of the
// disk goes through the EBS direct APIs into a snapshot, the snapshot is
// registered as an image, the image copied and shared. It needs no bucket, no
// import role and no instance. What a run that fails or is interrupted has
// made, it removes; what a killed run has made, the next one goes on with. It
// never touches images and snapshots of others, nor own ones under the same
// name unless told to.
package ami

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/images/ebs"
)

// Reporter hears what goes on; it may be called from several goroutines.
type Reporter interface {
	Say(format string, args ...any)
	Warn(format string, args ...any)
}

// Publish uploads a disk and makes images of it. On error, and when ctx ends,
// nothing that this run made is left, or the error names what is.
func Publish(ctx context.Context, d *target.Disk, o Options, r Reporter) (*Result, error) {
	s, err := open(ctx, d, o, r)
	if err != nil {
		return nil, err
	}
	defer s.store.close()
	for _, step := range s.steps() {
		err := step.run(ctx)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("stopped at step %q: %w", step.name, err)
		}
		return nil, s.abandon(ctx, err)
	}
	return s.finish()
}

// step is one named part of a run.
type step struct {
	name string
	run  func(ctx context.Context) error
}

func (s *session) steps() []step {
	list := []step{
		{"check", s.preflight},
		{"snapshot", s.snapshot},
	}
	if s.o.SkipCreate {
		return list
	}
	return append(list,
		step{"register", s.register},
		step{"copy", s.copies},
		step{"share", s.share},
	)
}

// session is one run.
type session struct {
	o     Options
	d     *target.Disk
	disk  *ebs.Disk
	rep   Reporter
	p     Patience
	cl    *clients
	store *store
	st    *state

	parent *parent
	upload string
	// began is true once there is something to clear away on error, resumed
	// when the snapshot was started by an earlier run.
	began, resumed bool

	mu     sync.Mutex
	images map[string]string // by region
	roots  map[string]string // snapshot of the image, by region
}

func open(ctx context.Context, d *target.Disk, o Options, r Reporter) (*session, error) {
	o.Patience = o.Patience.orDefault()
	if o.Name == "" {
		o.Name = d.Release()
	}
	if err := errors.Join(o.Check()...); err != nil {
		return nil, err
	}
	disk, err := ebs.NewDisk(d.File, d.Runs, d.Size)
	if err != nil {
		return nil, err
	}
	if o.VolumeGiB, err = o.volumeGiB(d); err != nil {
		return nil, err
	}
	cl, err := connect(ctx, o.Access, o.Patience)
	if err != nil {
		return nil, err
	}
	o.Region = cl.access.Region
	// The region is known only now, and some keys depend on it.
	if err := errors.Join(o.Check()...); err != nil {
		return nil, err
	}
	cache := o.Cache
	if cache == "" {
		if cache, err = builder.CacheDir(); err != nil {
			return nil, err
		}
	}
	st, err := openStore(cache, o.Region, o.EBS, o.Name)
	if err != nil {
		return nil, err
	}
	return &session{o: o, d: d, disk: disk, rep: r, p: o.Patience, cl: cl, store: st,
		images: map[string]string{}, roots: map[string]string{}}, nil
}

func (s *session) caller(region string) *caller { return &caller{s.p, region} }

// ec2 makes one EC2 call in a region.
func (s *session) ec2(ctx context.Context, region string, k call, f func(ctx context.Context, c *ec2.Client) error) (lost bool, err error) {
	c := s.cl.ec2(region)
	return s.caller(region).do(ctx, k, func(ctx context.Context) error { return f(ctx, c) })
}

// uploadID is the hash of all that decides the snapshot's content and how
// StartSnapshot is asked: with the same token it must be asked the same.
func (s *session) uploadID(parent string, gib int64) string {
	b, err := json.Marshal([]any{1, s.d.SHA256(), s.d.Size, s.o.Region, s.o.Name, s.o.Description, gib, parent, s.o.Encrypt, s.o.KMSKey, s.o.SnapshotTags, s.d.Release(), s.d.Manifest.RootHash})
	if err != nil {
		panic(err) // only plain values are ever passed
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// ownKeys are the keys of the tags we set.
var ownKeys = []string{tagRelease, tagName, tagRootHash, tagUpload, tagAttempt}

const (
	tagRelease  = ownTags + "release"
	tagName     = ownTags + "name"
	tagRootHash = ownTags + "root-hash"
	tagUpload   = ownTags + "upload"
	tagAttempt  = ownTags + "attempt"
)

// tags are those of the user, ours, and Name, which consoles show.
func (s *session) tags(user map[string]string) map[string]string {
	all := map[string]string{"Name": s.o.Name}
	for k, v := range user {
		all[k] = v
	}
	all[tagRelease] = s.d.Release()
	all[tagName] = s.d.Manifest.Name
	all[tagRootHash] = s.d.Manifest.RootHash
	all[tagUpload] = s.upload
	all[tagAttempt] = s.st.Attempt
	return all
}

func (s *session) made(region, image, snapshot string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if image != "" {
		s.images[region] = image
	}
	if snapshot != "" {
		s.roots[region] = snapshot
	}
}

// volumeGiB is the size of a machine's system disk: the wish, else the size
// profile's, and never less than the disk.
func (o Options) volumeGiB(d *target.Disk) (int64, error) {
	wish := o.VolumeGiB
	if wish == 0 {
		profile, err := sizeGiB(d.Manifest.Sizes, o.Size)
		if err != nil {
			return 0, err
		}
		wish = max(profile, (d.Size+ebs.GiB-1)/ebs.GiB)
	}
	n, err := d.Capacity("volume_size", wish*ebs.GiB, ebs.GiB)
	if err != nil {
		return 0, err
	}
	if o.VolumeType == "standard" && n > 1024*ebs.GiB {
		return 0, fmt.Errorf("volume_size: %d GiB is more than a volume of type standard can have", n/ebs.GiB)
	}
	return n / ebs.GiB, nil
}
