// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// rootDevice is the name of the system disk in the image; Nitro machines see
// NVMe disks whatever it says.
const rootDevice = "/dev/xvda"

// registration is all that RegisterImage is asked.
func (s *session) registration() *ec2.RegisterImageInput {
	ebs := &ec2types.EbsBlockDevice{
		SnapshotId:          &s.st.Snapshot,
		VolumeSize:          aws.Int32(int32(max(s.o.VolumeGiB, s.gib()))),
		VolumeType:          ec2types.VolumeType(or(s.o.VolumeType, "gp3")),
		DeleteOnTermination: aws.Bool(!s.o.KeepVolume),
	}
	if s.o.IOPS > 0 {
		ebs.Iops = aws.Int32(int32(s.o.IOPS))
	}
	if s.o.Throughput > 0 {
		ebs.Throughput = aws.Int32(int32(s.o.Throughput))
	}
	in := &ec2.RegisterImageInput{
		Name:                &s.o.Name,
		Architecture:        ec2types.ArchitectureValuesX8664,
		VirtualizationType:  aws.String("hvm"),
		RootDeviceName:      aws.String(rootDevice),
		BlockDeviceMappings: []ec2types.BlockDeviceMapping{{DeviceName: aws.String(rootDevice), Ebs: ebs}},
		EnaSupport:          aws.Bool(true),
		SriovNetSupport:     aws.String("simple"),
		BootMode:            ec2types.BootModeValuesUefi,
		TpmSupport:          ec2types.TpmSupportValuesV20,
		ImdsSupport:         ec2types.ImdsSupportValuesV20,
		TagSpecifications:   []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeImage, Tags: ec2Tags(s.tags(s.o.Tags))}},
	}
	if s.o.Description != "" {
		in.Description = &s.o.Description
	}
	if s.o.UefiData != "" {
		in.UefiData = &s.o.UefiData
	}
	return in
}

// register makes the image of the snapshot and waits for it.
func (s *session) register(ctx context.Context) error {
	s.made(s.o.Region, "", s.st.Snapshot)
	id := s.images[s.o.Region]
	if id != "" {
		s.rep.Say("image %s in %s was registered already", id, s.o.Region)
	} else {
		if err := s.makeRoom(ctx, s.o.Region); err != nil {
			return err
		}
		var err error
		if id, err = s.registerImage(ctx); err != nil {
			return err
		}
		s.rep.Say("image %s registered in %s", id, s.o.Region)
	}
	s.made(s.o.Region, id, "")
	s.st.Image = id
	if err := s.store.save(s.st); err != nil {
		return err
	}
	_, err := s.awaitImage(ctx, s.o.Region, id, s.p.Image)
	return err
}

func (s *session) registerImage(ctx context.Context) (string, error) {
	in := s.registration()
	var out *ec2.RegisterImageOutput
	_, err := s.ec2(ctx, s.o.Region, call{what: "register the image", permission: "ec2:RegisterImage and ec2:CreateTags", missingUntil: time.Now().Add(s.p.Missing), creates: true},
		func(ctx context.Context, c *ec2.Client) error {
			var err error
			out, err = c.RegisterImage(ctx, in)
			return err
		})
	if code(err) == "InvalidAMIName.Duplicate" {
		// RegisterImage knows no client token: a request whose answer was
		// lost shows only in that its name is taken, by us.
		found, e := s.imagesBy(ctx, s.o.Region, "name", s.o.Name)
		if e != nil {
			return "", e
		}
		for _, im := range found {
			if tagOf(im.Tags, tagAttempt) == s.st.Attempt || rootOf(im) == s.st.Snapshot {
				return aws.ToString(im.ImageId), nil
			}
		}
		return "", fmt.Errorf("ami_name: %w: somebody else registered %q in %s meanwhile; choose another one", errTaken, s.o.Name, s.o.Region)
	}
	if err != nil {
		return "", err
	}
	if id := aws.ToString(out.ImageId); imageRE.MatchString(id) {
		return id, nil
	}
	return "", fmt.Errorf("register the image in %s: the answer has no id but %q", s.o.Region, aws.ToString(out.ImageId))
}

// makeRoom deregisters own images of the name, when told to.
func (s *session) makeRoom(ctx context.Context, region string) error {
	if !s.o.ForceDeregister {
		return nil
	}
	found, err := s.imagesBy(ctx, region, "name", s.o.Name)
	if err != nil {
		return err
	}
	for _, im := range found {
		if tagOf(im.Tags, tagAttempt) == s.st.Attempt {
			continue
		}
		id := aws.ToString(im.ImageId)
		if err := s.deregister(ctx, region, id); err != nil {
			return err
		}
		s.rep.Say("image %s in %s deregistered, to be replaced", id, region)
		if !s.o.ForceDeleteSnapshot {
			continue
		}
		for _, snap := range snapshotsOf(im) {
			if snap == s.st.Snapshot {
				continue
			}
			if err := s.deleteSnapshot(ctx, region, snap); err != nil {
				return err
			}
			s.rep.Say("snapshot %s in %s deleted", snap, region)
		}
	}
	return nil
}

// copies makes a copy in every other region, side by side.
func (s *session) copies(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for _, region := range s.o.all()[1:] {
		wg.Go(func() {
			if err := s.copyTo(ctx, region); err != nil {
				stop(err) // the first one counts
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (s *session) copyTo(ctx context.Context, region string) error {
	s.mu.Lock()
	source, id := s.images[s.o.Region], s.images[region]
	s.mu.Unlock()
	if id == "" {
		if err := s.makeRoom(ctx, region); err != nil {
			return err
		}
		in := &ec2.CopyImageInput{
			Name: &s.o.Name, SourceImageId: &source, SourceRegion: &s.o.Region,
			ClientToken: aws.String(s.st.token("copy to " + region)),
			TagSpecifications: []ec2types.TagSpecification{
				{ResourceType: ec2types.ResourceTypeImage, Tags: ec2Tags(s.tags(s.o.Tags))},
				{ResourceType: ec2types.ResourceTypeSnapshot, Tags: ec2Tags(s.tags(s.o.SnapshotTags))},
			},
		}
		if s.o.Description != "" {
			in.Description = &s.o.Description
		}
		if s.o.Encrypt {
			in.Encrypted = aws.Bool(true)
			if key := s.o.keyIn(region); key != "" {
				in.KmsKeyId = &key
			}
		}
		var out *ec2.CopyImageOutput
		_, err := s.ec2(ctx, region, call{what: "copy the image", permission: "ec2:CopyImage and ec2:CreateTags", creates: true}, func(ctx context.Context, c *ec2.Client) error {
			var err error
			out, err = c.CopyImage(ctx, in)
			return err
		})
		if err != nil {
			return err
		}
		id = aws.ToString(out.ImageId)
		s.made(region, id, "")
		s.rep.Say("image %s is being copied to %s", id, region)
	}
	im, err := s.awaitImage(ctx, region, id, s.p.Copy)
	if err != nil {
		return err
	}
	s.made(region, id, rootOf(*im))
	s.rep.Say("image %s is available in %s", id, region)
	return nil
}

// awaitImage waits until an image is available.
func (s *session) awaitImage(ctx context.Context, region, id string, within time.Duration) (*ec2types.Image, error) {
	started := time.Now()
	var got *ec2types.Image
	err := s.caller(region).poll(ctx, "image "+id+" to be available", within, func(ctx context.Context) (bool, string, error) {
		var out *ec2.DescribeImagesOutput
		_, err := s.ec2(ctx, region, call{what: "look at image " + id, permission: "ec2:DescribeImages"}, func(ctx context.Context, c *ec2.Client) error {
			var err error
			out, err = c.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}})
			return err
		})
		if (judge(err) == missing || err == nil && len(out.Images) == 0) && time.Since(started) < s.p.Missing {
			return false, "not known", nil
		}
		if err != nil {
			return false, "", err
		}
		if len(out.Images) == 0 {
			return false, "", fmt.Errorf("image %s in %s is gone", id, region)
		}
		got = &out.Images[0]
		switch got.State {
		case ec2types.ImageStateAvailable:
			return true, "", nil
		case ec2types.ImageStatePending, ec2types.ImageStateTransient:
			return false, string(got.State), nil
		}
		reason := "EC2 gives no reason"
		if got.StateReason != nil {
			reason = aws.ToString(got.StateReason.Message)
		}
		return false, "", fmt.Errorf("image %s in %s is %s: %s", id, region, got.State, reason)
	})
	return got, err
}

// share gives the images away, as far as that was asked for.
func (s *session) share(ctx context.Context) error {
	for _, region := range s.o.all() {
		if err := s.shareIn(ctx, region); err != nil {
			return err
		}
	}
	return nil
}

// snapshotsOf are the snapshots of an image's disks, rootOf that of its first.
func snapshotsOf(im ec2types.Image) []string {
	var list []string
	for _, m := range im.BlockDeviceMappings {
		if m.Ebs != nil && aws.ToString(m.Ebs.SnapshotId) != "" {
			list = append(list, *m.Ebs.SnapshotId)
		}
	}
	return list
}

func rootOf(im ec2types.Image) string {
	if list := snapshotsOf(im); len(list) > 0 {
		return list[0]
	}
	return ""
}

func ec2Tags(tags map[string]string) []ec2types.Tag {
	var list []ec2types.Tag
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, ec2types.Tag{Key: aws.String(k), Value: aws.String(tags[k])})
	}
	return list
}
