// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"google.golang.org/api/compute/v1"
	"google.golang.org/api/storage/v1"

	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/images/gcetar"
)

// job is one upload on its way.
type job struct {
	Upload
	path string
	rec  target.Record
	p    Progress
	l    limits
	c    *clients

	// What there is to remove after a failure: object is the archive in the
	// bucket; sent is true where it may be there; asked is true where the image
	// may be, begun where Google has said that it makes it.
	object *storage.Object
	sent   bool
	asked  bool
	begun  bool
}

// publish makes the image of an archive. u must have its defaults.
func (u Upload) publish(ctx context.Context, path string, rec target.Record, p Progress) (*Image, error) {
	j := &job{Upload: u, path: path, rec: rec, p: p, l: usual()}
	if u.limits != nil {
		j.l = *u.limits
	}
	if j.Object == "" {
		j.Object = fmt.Sprintf("%s-%.16s.tar.gz", j.ImageName, rec.SHA256)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, u.Timeout, fmt.Errorf("it was not done after timeout, %s", u.Timeout))
	defer cancel()
	if err := checkArchive(path, rec); err != nil {
		return nil, err
	}
	var err error
	if j.c, err = u.connect(ctx, j.l); err != nil {
		return nil, err
	}
	i, err := j.run(ctx)
	if err != nil {
		return nil, j.undo(ctx, err)
	}
	return j.done(ctx, i), nil
}

// checkArchive spares the upload of what Google would refuse.
func checkArchive(path string, rec target.Record) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	i, err := gcetar.Open(f)
	if err == nil && i.Size != rec.DiskBytes {
		err = fmt.Errorf("its disk has %d bytes, its record says %d", i.Size, rec.DiskBytes)
	}
	if err != nil {
		return fmt.Errorf("%s is damaged: %w; delete it and try again", path, err)
	}
	return nil
}

// run looks first, so that what can be known before is an error before the
// upload; it removes nothing but an image that shall be replaced.
func (j *job) run(ctx context.Context) (*compute.Image, error) {
	old, err := j.image(ctx)
	if err != nil {
		return nil, err
	}
	if old != nil && !j.Overwrite {
		return nil, j.taken()
	}
	if j.object, err = j.find(ctx); err != nil {
		return nil, err
	}
	if j.object != nil {
		j.sent = true
		j.p.Say("gs://%s/%s is there from an earlier run, it is used", j.Bucket, j.Object)
	} else {
		j.p.Say("uploading %s to gs://%s/%s", show.Bytes(j.rec.Bytes), j.Bucket, j.Object)
		if j.object, err = j.upload(ctx); err != nil {
			return nil, err
		}
	}
	if old != nil {
		// Only now: had the upload failed, the old image would be there still.
		j.p.Say("deleting the image %s, to be replaced", j.ImageName)
		if err := j.removeImage(ctx); err != nil {
			return nil, err
		}
	}
	j.p.Say("making the image %s in the project %s", j.ImageName, j.Project)
	i, err := j.insert(ctx)
	if err == nil {
		err = j.share(ctx)
	}
	if err != nil && old != nil {
		err = fmt.Errorf("%w; the image that it replaces is deleted already", err)
	}
	return i, err
}

// undo removes what a run that failed has made, and adds to its error what
// could not be removed. It works also when ctx is over, for l.cleanup.
func (j *job) undo(ctx context.Context, why error) error {
	if !j.sent && !j.asked && j.c.sessions.open() == "" {
		return why
	}
	j.p.Say("removing what was made in the cloud")
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), j.l.cleanup, fmt.Errorf("it was not done after %s", j.l.cleanup))
	defer cancel()
	// Side by side, because an image that is being made may only be deleted
	// once its archive is gone and the making has failed.
	var object, image error
	var both sync.WaitGroup
	both.Go(func() { object = j.removeObject(ctx) })
	if j.asked {
		both.Go(func() { image = j.removeImage(ctx) })
	}
	both.Wait()
	left := errors.Join(object, image)
	if left == nil {
		return fmt.Errorf("%w (nothing is left in the cloud)", why)
	}
	return fmt.Errorf("%w; and something is left in the cloud: %s", why, strings.ReplaceAll(left.Error(), "\n", "; "))
}

// done deletes the archive, which the image does not need. A failure here does
// not spoil the image: it is a warning that says what is left.
func (j *job) done(ctx context.Context, i *compute.Image) *Image {
	out := &Image{
		Project: j.Project, Name: j.ImageName, SelfLink: i.SelfLink, Family: i.Family,
		Locations: i.StorageLocations, Bucket: j.Bucket, Object: j.Object,
	}
	if j.KeepObject {
		return out
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), j.l.cleanup, fmt.Errorf("it was not done after %s", j.l.cleanup))
	defer cancel()
	if err := j.removeObject(ctx); err != nil {
		j.p.Warn("the image %s is ready, but its archive was not deleted: %v", j.ImageName, err)
		return out
	}
	out.Object = ""
	return out
}

// Delete deletes an image of u's project, within the usual time for clean-up.
func (u Upload) Delete(ctx context.Context, image string) error {
	u.ImageName = image
	j := &job{Upload: u, l: usual()}
	if u.limits != nil {
		j.l = *u.limits
	}
	ctx, cancel := context.WithTimeoutCause(ctx, j.l.cleanup, fmt.Errorf("it was not done after %s", j.l.cleanup))
	defer cancel()
	var err error
	if j.c, err = u.connect(ctx, j.l); err != nil {
		return err
	}
	return j.removeImage(ctx)
}
