// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// shareIn lets others use image and snapshot in a region.
func (s *session) shareIn(ctx context.Context, region string) error {
	image, root := s.images[region], s.roots[region]
	if p := s.launchers(); len(p) > 0 {
		_, err := s.ec2(ctx, region, call{what: "share image " + image, permission: "ec2:ModifyImageAttribute"}, func(ctx context.Context, c *ec2.Client) error {
			_, err := c.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{
				ImageId: &image, Attribute: aws.String("launchPermission"), LaunchPermission: &ec2types.LaunchPermissionModifications{Add: p},
			})
			return err
		})
		if err != nil {
			return err
		}
		s.rep.Say("image %s in %s shared as asked", image, region)
	}
	if p := s.volumeMakers(); len(p) > 0 {
		_, err := s.ec2(ctx, region, call{what: "share snapshot " + root, permission: "ec2:ModifySnapshotAttribute"}, func(ctx context.Context, c *ec2.Client) error {
			_, err := c.ModifySnapshotAttribute(ctx, &ec2.ModifySnapshotAttributeInput{
				SnapshotId: &root, Attribute: ec2types.SnapshotAttributeNameCreateVolumePermission,
				CreateVolumePermission: &ec2types.CreateVolumePermissionModifications{Add: p},
			})
			return err
		})
		if err != nil {
			return err
		}
		s.rep.Say("snapshot %s in %s shared as asked", root, region)
	}
	if s.o.DeprecateAt == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339, s.o.DeprecateAt)
	if err != nil {
		return err
	}
	_, err = s.ec2(ctx, region, call{what: "deprecate image " + image, permission: "ec2:EnableImageDeprecation"}, func(ctx context.Context, c *ec2.Client) error {
		_, err := c.EnableImageDeprecation(ctx, &ec2.EnableImageDeprecationInput{ImageId: &image, DeprecateAt: &at})
		return err
	})
	return err
}

func (s *session) launchers() []ec2types.LaunchPermission {
	var p []ec2types.LaunchPermission
	for _, u := range s.o.Users {
		p = append(p, ec2types.LaunchPermission{UserId: aws.String(u)})
	}
	for _, a := range s.o.OrgARNs {
		p = append(p, ec2types.LaunchPermission{OrganizationArn: aws.String(a)})
	}
	for _, a := range s.o.OUARNs {
		p = append(p, ec2types.LaunchPermission{OrganizationalUnitArn: aws.String(a)})
	}
	for _, g := range s.o.Groups {
		p = append(p, ec2types.LaunchPermission{Group: ec2types.PermissionGroup(g)})
	}
	return p
}

func (s *session) volumeMakers() []ec2types.CreateVolumePermission {
	var p []ec2types.CreateVolumePermission
	for _, u := range s.o.SnapshotUsers {
		p = append(p, ec2types.CreateVolumePermission{UserId: aws.String(u)})
	}
	for _, g := range s.o.SnapshotGroups {
		p = append(p, ec2types.CreateVolumePermission{Group: ec2types.PermissionGroup(g)})
	}
	return p
}
