// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/api/compute/v1"
)

// imageUser is the role that lets somebody make machines of an image.
const imageUser = "roles/compute.imageUser"

// image is the image as it is, nil when there is none.
func (j *job) image(ctx context.Context) (*compute.Image, error) {
	var i *compute.Image
	what := "look for the image " + j.ImageName
	err := j.l.try(ctx, func(ctx context.Context) (err error) {
		i, err = j.c.compute.Images.Get(j.Project, j.ImageName).Context(ctx).Do()
		return err
	})
	switch {
	case status(err) == http.StatusNotFound && strings.Contains(said(err), "/images/"+j.ImageName):
		return nil, nil
	case err != nil: // without the image's name the project is what is missing
		return nil, j.computeError(what, err)
	}
	return i, nil
}

// describe is the body of images.insert.
func (j *job) describe() *compute.Image {
	i := &compute.Image{
		Name: j.ImageName, Description: j.Description, Family: j.Family, Labels: j.Labels,
		SourceType: "RAW", Architecture: "X86_64",
		RawDisk:                      &compute.ImageRawDisk{ContainerType: "TAR", Source: fmt.Sprintf("https://storage.googleapis.com/%s/%s", j.Bucket, j.Object)},
		Licenses:                     j.Licenses,
		StorageLocations:             j.StorageLocations,
		ShieldedInstanceInitialState: j.SecureBoot.state(),
	}
	for _, f := range append(DefaultFeatures(), j.Features...) {
		if !slices.ContainsFunc(i.GuestOsFeatures, func(g *compute.GuestOsFeature) bool { return g.Type == f }) {
			i.GuestOsFeatures = append(i.GuestOsFeatures, &compute.GuestOsFeature{Type: f})
		}
	}
	if j.KMSKey != "" {
		i.ImageEncryptionKey = &compute.CustomerEncryptionKey{KmsKeyName: j.KMSKey, KmsKeyServiceAccount: j.KMSServiceAccount}
	}
	return i
}

// insert asks for the image and waits until machines can be made of it.
func (j *job) insert(ctx context.Context) (*compute.Image, error) {
	what := "make the image " + j.ImageName
	var op *compute.Operation
	id := requestID() // makes a second attempt the same request
	j.asked = true
	// Once sent, the answer is waited for a little even when ctx ends: it tells
	// whether there is something to remove.
	err := j.l.try(ctx, func(context.Context) (err error) {
		ctx, cancel := j.l.outlive(ctx)
		defer cancel()
		op, err = j.c.compute.Images.Insert(j.Project, j.describe()).RequestId(id).Context(ctx).Do()
		return err
	})
	if err != nil {
		j.asked = !refused(err) // if refused, an image of this name is not ours
		return nil, j.computeError(what, err)
	}
	j.begun = true
	ctx, cancel := context.WithTimeoutCause(ctx, j.StateTimeout, fmt.Errorf("the image was not ready after state_timeout, %s", j.StateTimeout))
	defer cancel()
	if err := j.finish(ctx, op); err != nil {
		return nil, j.computeError(what, err)
	}
	for {
		i, err := j.image(ctx)
		switch {
		case err != nil:
			return nil, err
		case i == nil:
			return nil, fmt.Errorf("%s: somebody deleted it meanwhile", what)
		case i.Status == "READY":
			return i, nil
		case i.Status != "PENDING":
			return nil, fmt.Errorf("%s: Google says that it is %s: try again", what, i.Status)
		}
		if err := wait(ctx, j.l.poll); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
}

// finish waits for the end of an operation.
func (j *job) finish(ctx context.Context, op *compute.Operation) error {
	for op.Status != "DONE" {
		if err := wait(ctx, j.l.poll); err != nil {
			return err
		}
		name := op.Name
		if err := j.l.try(ctx, func(ctx context.Context) (err error) {
			op, err = j.c.compute.GlobalOperations.Get(j.Project, name).Context(ctx).Do()
			return err
		}); err != nil {
			return err
		}
	}
	if op.Error == nil || len(op.Error.Errors) == 0 {
		return nil
	}
	var texts []string
	for _, e := range op.Error.Errors {
		texts = append(texts, fmt.Sprintf("%s (%s)", strings.TrimSuffix(e.Message, "."), e.Code))
	}
	return fmt.Errorf("Google says: %s", strings.Join(texts, "; "))
}

// removeImage deletes the image and waits for it. One that is still being made
// may not be ready for that, so it is asked for again until ctx ends.
func (j *job) removeImage(ctx context.Context) error {
	what := "delete the image " + j.ImageName
	for {
		var op *compute.Operation
		id := requestID()
		err := j.l.try(ctx, func(ctx context.Context) (err error) {
			op, err = j.c.compute.Images.Delete(j.Project, j.ImageName).RequestId(id).Context(ctx).Do()
			return err
		})
		if err == nil {
			err = j.finish(ctx, op)
		}
		switch {
		case status(err) == http.StatusNotFound && j.asked && !j.begun:
			return fmt.Errorf("the connection broke while the image %s was asked for, and there is none so far: look with `gcloud compute images describe %s --project=%s`, and delete it if it came later", j.ImageName, j.ImageName, j.Project)
		case err == nil, status(err) == http.StatusNotFound:
			return nil
		case ctx.Err() == nil && strings.Contains(err.Error(), "is not ready"):
			if wait(ctx, j.l.poll) == nil {
				continue
			}
		}
		return fmt.Errorf("%w; delete it with `gcloud compute images delete %s --project=%s`", j.computeError(what, err), j.ImageName, j.Project)
	}
}

// share lets others use the image. The policy is read first and written with
// its etag, so that nobody's change is lost.
func (j *job) share(ctx context.Context) error {
	members := slices.Clone(j.Members)
	if j.Public {
		members = append(members, "allAuthenticatedUsers")
	}
	if len(members) == 0 {
		return nil
	}
	what := "share the image " + j.ImageName
	for n := 1; ; n++ {
		err := j.l.try(ctx, func(ctx context.Context) error { return j.grant(ctx, members) })
		if s := status(err); (s == http.StatusConflict || s == http.StatusPreconditionFailed) && n < 5 {
			continue // somebody else changed the policy in between
		}
		if err == nil {
			return nil
		}
		if s := status(err); s == http.StatusConflict || s == http.StatusPreconditionFailed {
			return fmt.Errorf("%s: its policy is changed by somebody else all the time: try again", what)
		}
		return j.computeError(what, err)
	}
}

func (j *job) grant(ctx context.Context, members []string) error {
	policy, err := j.c.compute.Images.GetIamPolicy(j.Project, j.ImageName).OptionsRequestedPolicyVersion(3).Context(ctx).Do()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(policy.Bindings, func(b *compute.Binding) bool { return b.Role == imageUser && b.Condition == nil })
	if i < 0 {
		i = len(policy.Bindings)
		policy.Bindings = append(policy.Bindings, &compute.Binding{Role: imageUser})
	}
	for _, m := range members {
		if !slices.Contains(policy.Bindings[i].Members, m) {
			policy.Bindings[i].Members = append(policy.Bindings[i].Members, m)
		}
	}
	_, err = j.c.compute.Images.SetIamPolicy(j.Project, j.ImageName, &compute.GlobalSetPolicyRequest{Policy: policy}).Context(ctx).Do()
	return err
}

// requestID is a UUID, version 4: what Google knows a repeated request by.
func requestID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
