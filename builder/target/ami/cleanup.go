// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/holdfast/holdfast/builder/target"
)

// deleteWithin is how long a snapshot may still count as used by an image that
// was just deregistered.
const deleteWithin = 20 * time.Second

// abandon removes what the run made, under a deadline of its own: the one of
// the run may be why it ends.
func (s *session) abandon(ctx context.Context, cause error) error {
	if !s.began {
		return cause
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), s.p.Cleanup, fmt.Errorf("cleaned up for %s", s.p.Cleanup))
	defer cancel()
	if err := s.clear(ctx, s.st); err != nil {
		return fmt.Errorf("%w; and not all of it could be removed, the next run will try again: %w", cause, err)
	}
	return cause
}

// clear removes what an attempt made, in every region, and forgets it. It goes
// by the attempt's tag, which shows also what was made by a request whose
// answer never came, and by the ids that are known, which a search may not
// find yet.
func (s *session) clear(ctx context.Context, st *state) error {
	var errs []error
	for i, region := range st.Regions {
		images, snapshots, err := s.madeBy(ctx, region, st)
		errs = append(errs, err)
		s.mu.Lock()
		if s.st == st && s.images[region] != "" {
			images = append(images, s.images[region])
		}
		if s.st == st && s.roots[region] != "" {
			snapshots = append(snapshots, s.roots[region])
		}
		s.mu.Unlock()
		if i == 0 && st.Image != "" {
			images = append(images, st.Image)
		}
		if i == 0 && st.Snapshot != "" {
			snapshots = append(snapshots, st.Snapshot)
		}
		errs = append(errs, s.remove(ctx, region, images, snapshots))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return s.store.forget()
}

// madeBy searches for what an attempt made in a region.
func (s *session) madeBy(ctx context.Context, region string, st *state) (images, snapshots []string, err error) {
	found, err := s.imagesBy(ctx, region, "tag:"+tagAttempt, st.Attempt)
	if err != nil {
		return nil, nil, err
	}
	for _, im := range found {
		images = append(images, aws.ToString(im.ImageId))
		snapshots = append(snapshots, snapshotsOf(im)...)
	}
	snaps, err := s.snapshotsBy(ctx, region, tagAttempt, st.Attempt)
	for _, x := range snaps {
		snapshots = append(snapshots, aws.ToString(x.SnapshotId))
	}
	return images, snapshots, err
}

// remove deregisters images and then deletes snapshots; those that are gone
// already are no error.
func (s *session) remove(ctx context.Context, region string, images, snapshots []string) error {
	var errs []error
	each := func(list []string, f func(context.Context, string, string) error, what string) {
		slices.Sort(list)
		for _, id := range slices.Compact(list) {
			if err := f(ctx, region, id); err != nil {
				errs = append(errs, err)
			} else {
				s.rep.Say("%s %s in %s removed", what, id, region)
			}
		}
	}
	each(images, s.deregister, "image")
	each(snapshots, s.deleteSnapshot, "snapshot")
	return errors.Join(errs...)
}

func (s *session) deregister(ctx context.Context, region, id string) error {
	_, err := s.ec2(ctx, region, call{what: "deregister image " + id, permission: "ec2:DeregisterImage"}, func(ctx context.Context, c *ec2.Client) error {
		_, err := c.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &id})
		return err
	})
	if judge(err) == missing {
		return nil
	}
	return err
}

func (s *session) deleteSnapshot(ctx context.Context, region, id string) error {
	_, err := s.ec2(ctx, region, call{what: "delete snapshot " + id, permission: "ec2:DeleteSnapshot", give: deleteWithin}, func(ctx context.Context, c *ec2.Client) error {
		_, err := c.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &id})
		return err
	})
	if judge(err) == missing {
		return nil
	}
	return err
}

// Remove deregisters the images of a result and deletes their snapshots. It
// needs the same access as the upload did.
func Remove(ctx context.Context, a Access, r Result) error {
	p := Patience{}.orDefault()
	a.Region = or(a.Region, r.Region)
	cl, err := connect(ctx, a, p)
	if err != nil {
		return err
	}
	s := &session{p: p, cl: cl, rep: silent{}}
	var errs []error
	for _, im := range r.Images {
		var images []string
		if im.ID != "" {
			images = []string{im.ID}
		}
		errs = append(errs, s.remove(ctx, im.Region, images, []string{im.Snapshot}))
	}
	return errors.Join(errs...)
}

type silent struct{}

func (silent) Say(string, ...any)  {}
func (silent) Warn(string, ...any) {}

// Plan says what an upload would send, and asks nobody.
func Plan(d *target.Disk, o Options) (string, error) {
	o.Name = or(o.Name, d.Release())
	if err := errors.Join(o.Check()...); err != nil {
		return "", err
	}
	gib, err := o.volumeGiB(d)
	if err != nil {
		return "", err
	}
	where := strings.Join(o.all(), ", ")
	return fmt.Sprintf("would upload %s and register %q with a disk of %d GiB in %s", d.Release(), o.Name, gib, or(where, "the default region")), nil
}
