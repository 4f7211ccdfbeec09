// SPDX-License-Identifier: Apache-2.0

//go:generate go tool -modfile=../../packer/go.mod packer-sdc mapstructure-to-hcl2 -type Config,AssumeRole
//go:generate mkdir -p ../../../build/packer-plugin-holdfast/builder/packerplugin/ami ../../../docs/partials
//go:generate cp config.go ../../../build/packer-plugin-holdfast/builder/packerplugin/ami
//go:generate go tool -modfile=../../packer/go.mod packer-sdc struct-markdown ../../../build/packer-plugin-holdfast/builder/packerplugin/ami/config.go
//go:generate cp -r ../../../build/packer-plugin-holdfast/docs-partials/. ../../../docs/partials
//go:generate rm -rf ../../../build/packer-plugin-holdfast

package postami

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/hashicorp/packer-plugin-sdk/common"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/hashicorp/packer-plugin-sdk/template/interpolate"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/target/ami"
	"github.com/holdfast/holdfast/images/uefivars"
)

// Config is the body of `post-processor "holdfast-ami" { }`. Options that
// Packer's Amazon plugin has too have its names.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// Region that the disk is uploaded to and the image is registered in, such
	// as `eu-central-1`. By default that of `AWS_REGION` or the profile.
	Region string `mapstructure:"region"`
	// Profile of the shared AWS files. By default that of `AWS_PROFILE`.
	Profile string `mapstructure:"profile"`
	// Access key and secret key. By default the SDK's usual chain:
	// `AWS_ACCESS_KEY_ID`, the profile, single sign-on, the role of the machine.
	AccessKey string `mapstructure:"access_key"`
	// Goes with `access_key`.
	SecretKey string `mapstructure:"secret_key"`
	// Session token that goes with a temporary `access_key`.
	Token string `mapstructure:"token"`
	// A role to take on, with `role_arn`, and optionally `session_name` and
	// `external_id`.
	AssumeRole AssumeRole `mapstructure:"assume_role"`
	// Address of the EC2 API in place of Amazon's; goes with
	// `custom_endpoint_ebs`.
	CustomEndpointEC2 string `mapstructure:"custom_endpoint_ec2"`
	// Address of the EBS direct APIs in place of Amazon's.
	CustomEndpointEBS string `mapstructure:"custom_endpoint_ebs"`
	// Take `region` and `ami_regions` even if they do not look like regions.
	SkipRegionValidation bool `mapstructure:"skip_region_validation"`
	// Check the options and do nothing in AWS.
	SkipUpload bool `mapstructure:"skip_upload"`
	// Make the snapshot and no image of it.
	SkipCreateAMI bool `mapstructure:"skip_create_ami"`

	// Name of the image, which is unique in each region of an account. By
	// default `NAME-VERSION`.
	AMIName string `mapstructure:"ami_name"`
	// Description of image and snapshot.
	AMIDescription string `mapstructure:"ami_description"`
	// Tags of the images. `Name` is the image's name unless it is here.
	Tags map[string]string `mapstructure:"tags"`
	// Tags of the images' snapshots, likewise.
	SnapshotTags map[string]string `mapstructure:"snapshot_tags"`
	// Replace own images of the same name, in all regions. By default that is
	// an error, before anything is uploaded.
	ForceDeregister bool `mapstructure:"force_deregister"`
	// Delete the snapshots of images that `force_deregister` replaces.
	ForceDeleteSnapshot bool `mapstructure:"force_delete_snapshot"`
	// When the images are deprecated, such as `2030-12-31T00:00:00Z`. By
	// default never (AWS deprecates public images after two years).
	DeprecateAt string `mapstructure:"deprecate_at"`

	// Length in GiB of the system disk of machines made of the image. By
	// default that of `size`; it can't be less than disk.raw, and the box grows
	// into it.
	VolumeSize int64 `mapstructure:"volume_size"`
	// Size profile that decides the length of the disk: `XS` (the default),
	// `S`, `M`, `L` or `XL`.
	Size string `mapstructure:"size"`
	// Type of the system disk. By default `gp3`.
	VolumeType string `mapstructure:"volume_type"`
	// IOPS of the system disk, for `gp3`, `io1` and `io2`.
	IOPS int64 `mapstructure:"iops"`
	// Throughput of the system disk in MiB/s, for `gp3`.
	Throughput int64 `mapstructure:"throughput"`
	// Delete the system disk with its machine. By default `true`.
	DeleteOnTermination config.Trilean `mapstructure:"delete_on_termination"`

	// Regions that the image is copied to.
	AMIRegions []string `mapstructure:"ami_regions"`
	// Accounts that may launch the images.
	AMIUsers []string `mapstructure:"ami_users"`
	// `["all"]` makes the images public.
	AMIGroups []string `mapstructure:"ami_groups"`
	// ARNs of organizations that may launch the images.
	AMIOrgARNs []string `mapstructure:"ami_org_arns"`
	// ARNs of organizational units that may launch the images.
	AMIOUARNs []string `mapstructure:"ami_ou_arns"`
	// Accounts that may make volumes of the snapshots, which they need to copy
	// the images.
	SnapshotUsers []string `mapstructure:"snapshot_users"`
	// `["all"]` makes the snapshots public.
	SnapshotGroups []string `mapstructure:"snapshot_groups"`

	// Encrypt the snapshots.
	EncryptBoot bool `mapstructure:"encrypt_boot"`
	// ARN of the KMS key for `region`. By default the account's own key for
	// EBS; images that are encrypted with that one cannot be shared.
	KMSKeyID string `mapstructure:"kms_key_id"`
	// KMS keys for `ami_regions`, by region; `""` is the account's own.
	RegionKMSKeyIDs map[string]string `mapstructure:"region_kms_key_ids"`

	// Upload on top of this snapshot: only blocks that differ are sent and
	// paid for. `last` is the newest one of a release of the same name in the
	// region. By default everything is sent.
	ParentSnapshotID string `mapstructure:"parent_snapshot_id"`

	// IMDS version that the image asks for. There is only `v2.0`, the default.
	IMDSSupport string `mapstructure:"imds_support"`
	// Give machines made of the image a Secure Boot key set that trusts this
	// bake: its `signing.crt` as PK, KEK and db, unless the keys below name
	// others. By default machines start without Secure Boot.
	SecureBoot bool `mapstructure:"secure_boot"`
	// Certificate (PEM or DER) of the platform key; implies `secure_boot`.
	SecureBootPK string `mapstructure:"secure_boot_pk"`
	// Certificates (PEM or DER) of key exchange keys; implies `secure_boot`.
	SecureBootKEK []string `mapstructure:"secure_boot_kek"`
	// Certificates (PEM or DER) whose signatures are trusted; implies
	// `secure_boot`.
	SecureBootDB []string `mapstructure:"secure_boot_db"`
	// Files with EFI signature lists of what must not start; implies
	// `secure_boot`.
	SecureBootDBX []string `mapstructure:"secure_boot_dbx"`
	// The variable store of the image as base64, in place of those keys.
	UefiData string `mapstructure:"uefi_data"`

	// Folder for the state of uploads, which lets a killed one go on. By default
	// `$HOLDFAST_CACHE`, else `~/.cache/holdfast`.
	Cache string `mapstructure:"cache"`
	// Longest time for a snapshot to be complete once all is sent. By default
	// `15m`.
	SnapshotTimeout time.Duration `mapstructure:"snapshot_timeout"`
	// Longest time for the image to be available. By default `15m`.
	ImageTimeout time.Duration `mapstructure:"image_timeout"`
	// Longest time for a copy to be available. By default `2h`.
	CopyTimeout time.Duration `mapstructure:"copy_timeout"`

	ctx interpolate.Context
}

// AssumeRole is a role to take on.
type AssumeRole struct {
	// ARN of the role.
	RoleARN string `mapstructure:"role_arn"`
	// Name of the session. By default `holdfast`.
	SessionName string `mapstructure:"session_name"`
	// External ID that the role asks for.
	ExternalID string `mapstructure:"external_id"`
}

// decode fills c from what Packer hands over.
func (c *Config) decode(raws []any) error {
	err := config.Decode(c, &config.DecodeOpts{PluginType: BuilderID, Interpolate: true, InterpolateContext: &c.ctx}, raws...)
	packersdk.LogSecretFilter.Set(c.SecretKey, c.Token)
	return err
}

// options turns c into the target's, and checks them.
func (c *Config) options() (ami.Options, error) {
	o := ami.Options{
		Access: ami.Access{
			Region: c.Region, Profile: c.Profile, AccessKey: c.AccessKey, SecretKey: c.SecretKey, Token: c.Token,
			RoleARN: c.AssumeRole.RoleARN, RoleSession: c.AssumeRole.SessionName, ExternalID: c.AssumeRole.ExternalID,
			EC2: c.CustomEndpointEC2, EBS: c.CustomEndpointEBS, AnyRegion: c.SkipRegionValidation,
		},
		Name: c.AMIName, Description: c.AMIDescription, Tags: c.Tags, SnapshotTags: c.SnapshotTags,
		Size: c.Size, VolumeGiB: c.VolumeSize, VolumeType: c.VolumeType, IOPS: c.IOPS, Throughput: c.Throughput,
		KeepVolume: c.DeleteOnTermination.False(),
		Encrypt:    c.EncryptBoot, KMSKey: c.KMSKeyID, RegionKMSKeys: c.RegionKMSKeyIDs,
		Regions: c.AMIRegions, Users: c.AMIUsers, Groups: c.AMIGroups, OrgARNs: c.AMIOrgARNs, OUARNs: c.AMIOUARNs,
		SnapshotUsers: c.SnapshotUsers, SnapshotGroups: c.SnapshotGroups, DeprecateAt: c.DeprecateAt,
		ForceDeregister: c.ForceDeregister, ForceDeleteSnapshot: c.ForceDeleteSnapshot,
		UefiData: c.UefiData, Parent: c.ParentSnapshotID, SkipCreate: c.SkipCreateAMI, Cache: c.Cache,
		Patience: ami.Patience{Snapshot: c.SnapshotTimeout, Image: c.ImageTimeout, Copy: c.CopyTimeout},
	}
	errs := o.Check()
	if c.IMDSSupport != "" && c.IMDSSupport != "v2.0" {
		errs = append(errs, fmt.Errorf("imds_support: %q is not v2.0: the box takes nothing from IMDSv1", c.IMDSSupport))
	}
	if c.UefiData != "" && c.keyed() {
		errs = append(errs, errors.New("uefi_data: is there and secure_boot too: choose one of them"))
	}
	for key, d := range map[string]time.Duration{"snapshot_timeout": c.SnapshotTimeout, "image_timeout": c.ImageTimeout, "copy_timeout": c.CopyTimeout} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s: %s is no time to wait", key, d))
		}
	}
	if len(errs) > 0 {
		return o, &packersdk.MultiError{Errors: errs}
	}
	return o, nil
}

// keyed is true when a Secure Boot key set is asked for.
func (c *Config) keyed() bool {
	return c.SecureBoot || c.SecureBootPK != "" || len(c.SecureBootKEK)+len(c.SecureBootDB)+len(c.SecureBootDBX) > 0
}

// uefiData is the key set of an output folder as a variable store.
func (c *Config) uefiData(dir string) (string, error) {
	if !c.keyed() {
		return c.UefiData, nil
	}
	set, err := uefivars.Load(filepath.Join(dir, builder.CertName), uefivars.Files{PK: c.SecureBootPK, KEK: c.SecureBootKEK, DB: c.SecureBootDB, DBX: c.SecureBootDBX})
	if err != nil {
		return "", fmt.Errorf("secure_boot: %w", err)
	}
	return set.AWS()
}
