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
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/holdfast/holdfast/compose/budget"
)

// lookWithin is how long the first questions may fail: a wrong address shows
// there.
const lookWithin = 30 * time.Second

// errTaken is that the name is in use.
var errTaken = errors.New("the name is taken")

// preflight finds out all that would make the run fail later, and what an
// earlier run has left, before a byte is sent.
func (s *session) preflight(ctx context.Context) error {
	st, err := s.store.load()
	if err != nil {
		s.rep.Warn("%v: starting anew", err)
	}
	if err := s.names(ctx, st); err != nil {
		// What a killed run left under this name has no use any more.
		if st != nil && errors.Is(err, errTaken) {
			s.st, s.began = st, true
		}
		return err
	}
	if err := s.mayBePublic(ctx); err != nil {
		return err
	}
	if err := s.findParent(ctx, st); err != nil {
		return err
	}
	id := ""
	if s.parent != nil {
		id = s.parent.id
	}
	s.upload = s.uploadID(id, s.gib())
	if st != nil && st.Upload != s.upload {
		s.rep.Say("clearing away what an interrupted upload of another image left")
		if err := s.clear(ctx, st); err != nil {
			return err
		}
		clear(s.images)
		st = nil
	}
	if st == nil {
		if err := s.dead(ctx); err != nil {
			return err
		}
		st = newState(s.upload, id, s.o.all())
	}
	s.st, s.began = st, true
	return s.elsewhere(ctx)
}

// elsewhere removes copies that a killed run made in regions which are no
// longer asked for.
func (s *session) elsewhere(ctx context.Context) error {
	for _, region := range s.st.Regions {
		if slices.Contains(s.o.all(), region) {
			continue
		}
		images, snapshots, err := s.madeBy(ctx, region, s.st)
		if err == nil {
			err = s.remove(ctx, region, images, snapshots)
		}
		if err != nil {
			return err
		}
	}
	s.st.Regions = s.o.all()
	return s.store.save(s.st)
}

// names looks in every region for images of the name. Those of the attempt in
// st are our own, made before that run was killed.
func (s *session) names(ctx context.Context, st *state) error {
	var taken []string
	for _, region := range s.o.all() {
		if s.o.SkipCreate {
			// The first call all the same: credentials and region are
			// checked before anything is made.
			if _, err := s.imagesBy(ctx, region, "name", s.o.Name); err != nil {
				return err
			}
			continue
		}
		found, err := s.imagesBy(ctx, region, "name", s.o.Name)
		if err != nil {
			return err
		}
		for _, im := range found {
			if st != nil && tagOf(im.Tags, tagAttempt) == st.Attempt {
				s.made(region, aws.ToString(im.ImageId), "")
			} else if !s.o.ForceDeregister {
				taken = append(taken, fmt.Sprintf("%s in %s", aws.ToString(im.ImageId), region))
			}
		}
	}
	if len(taken) > 0 {
		return fmt.Errorf("ami_name: %w: %q is %s; choose another one, or set force_deregister to replace it", errTaken, s.o.Name, strings.Join(taken, ", "))
	}
	return nil
}

// imagesBy are the account's own images by a filter, also those whose time
// has come or that are switched off: they hold their name too.
func (s *session) imagesBy(ctx context.Context, region, filter, value string) ([]ec2types.Image, error) {
	var all []ec2types.Image
	in := &ec2.DescribeImagesInput{
		Owners: []string{"self"}, IncludeDeprecated: aws.Bool(true), IncludeDisabled: aws.Bool(true),
		Filters: []ec2types.Filter{{Name: &filter, Values: []string{escape(value)}}},
	}
	for {
		var out *ec2.DescribeImagesOutput
		_, err := s.ec2(ctx, region, call{what: "look for images", permission: "ec2:DescribeImages", give: min(s.p.Call, lookWithin)}, func(ctx context.Context, c *ec2.Client) error {
			var err error
			out, err = c.DescribeImages(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, out.Images...)
		if aws.ToString(out.NextToken) == "" || len(all) > maxFound {
			return all, nil
		}
		in.NextToken = out.NextToken
	}
}

// escape takes from a filter's value what EC2 would read as a pattern.
func escape(value string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(value)
}

// mayBePublic asks whether the account lets images be public, when one shall.
func (s *session) mayBePublic(ctx context.Context) error {
	if len(s.o.Groups) == 0 {
		return nil
	}
	for _, region := range s.o.all() {
		var out *ec2.GetImageBlockPublicAccessStateOutput
		_, err := s.ec2(ctx, region, call{what: "ask for block public access", permission: "ec2:GetImageBlockPublicAccessState"}, func(ctx context.Context, c *ec2.Client) error {
			var err error
			out, err = c.GetImageBlockPublicAccessState(ctx, &ec2.GetImageBlockPublicAccessStateInput{})
			return err
		})
		if judge(err) == refused {
			s.rep.Warn("not known whether %s lets images be public: %v", region, err)
			continue
		}
		if err != nil {
			return err
		}
		if aws.ToString(out.ImageBlockPublicAccessState) == string(ec2types.ImageBlockPublicAccessEnabledStateBlockNewSharing) {
			return errors.New("ami_groups: " + blockAdvice(region))
		}
	}
	return nil
}

// dead removes snapshots of this release's name that EBS itself has cancelled:
// what killed runs on machines that are gone have left.
func (s *session) dead(ctx context.Context) error {
	all, err := s.snapshotsBy(ctx, s.o.Region, tagName, s.d.Manifest.Name)
	if err != nil {
		return err
	}
	for _, x := range all {
		if x.State != ec2types.SnapshotStateError || tagOf(x.Tags, tagAttempt) == "" {
			continue
		}
		if err := s.deleteSnapshot(ctx, s.o.Region, aws.ToString(x.SnapshotId)); err != nil {
			s.rep.Warn("a failed snapshot of an earlier upload is still there: %v", err)
		} else {
			s.rep.Say("deleted snapshot %s, which an earlier upload left and EBS cancelled", aws.ToString(x.SnapshotId))
		}
	}
	return nil
}

func tagOf(tags []ec2types.Tag, key string) string {
	for _, t := range tags {
		if aws.ToString(t.Key) == key {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

// sizeGiB is the system disk of a size that the release is made for.
func sizeGiB(sizes []budget.Size, name string) (int64, error) {
	size, err := budget.SizeIn(sizes, name)
	if err != nil {
		return 0, fmt.Errorf("size: %w", err)
	}
	return int64(size.DiskGiB), nil
}
