// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"strings"
	"testing"
)

// Each bad value is one error that starts with the key.
func TestCheck(t *testing.T) {
	many := map[string]string{}
	for i := range 45 {
		many[strings.Repeat("k", i+1)] = ""
	}
	for _, c := range []struct {
		key  string
		with func(o *Options)
	}{
		{"ami_name: \"ab\" is not a name", func(o *Options) { o.Name = "ab" }},
		{"ami_name: ", func(o *Options) { o.Name = "a:b:c" }},
		{"ami_name: ", func(o *Options) { o.Name = strings.Repeat("n", 129) }},
		{"ami_description: ", func(o *Options) { o.Description = strings.Repeat("d", 256) }},
		{"region: \"Frankfurt\" does not look like", func(o *Options) { o.Region = "Frankfurt" }},
		{"ami_regions: ", func(o *Options) { o.Regions = []string{"us-east"} }},
		{"access_key: ", func(o *Options) { o.AccessKey = "x" }},
		{"token: ", func(o *Options) { o.Token = "x" }},
		{"assume_role: ", func(o *Options) { o.RoleARN = "admin" }},
		{"custom_endpoint_ec2: ", func(o *Options) { o.EC2, o.EBS = "ec2.example.com", "https://ebs.example.com" }},
		{"custom_endpoint_ebs: goes with", func(o *Options) { o.EC2 = "https://ec2.example.com" }},
		{"tags: ", func(o *Options) { o.Tags = map[string]string{"aws:x": ""} }},
		{"tags: ", func(o *Options) { o.Tags = map[string]string{"holdfast:upload": ""} }},
		{"snapshot_tags: ", func(o *Options) { o.SnapshotTags = many }},
		{"size: ", func(o *Options) { o.Size = "huge" }},
		{"volume_size: ", func(o *Options) { o.VolumeGiB = -1 }},
		{"volume_type: ", func(o *Options) { o.VolumeType = "st1" }},
		{"iops: is needed", func(o *Options) { o.VolumeType = "io2" }},
		{"iops: is not for", func(o *Options) { o.VolumeType, o.IOPS = "gp2", 100 }},
		{"throughput: ", func(o *Options) { o.Throughput = 5 }},
		{"encrypt_boot: is needed", func(o *Options) { o.KMSKey = "arn:aws:kms:eu-central-1:123456789012:key/1" }},
		{"kms_key_id: ", func(o *Options) { o.Encrypt, o.KMSKey = true, "alias/x" }},
		{"region_kms_key_ids: ", func(o *Options) { o.Encrypt, o.RegionKMSKeys = true, map[string]string{"us-east-1": ""} }},
		{"region_kms_key_ids: has no key", func(o *Options) {
			o.Encrypt, o.Regions, o.RegionKMSKeys = true, []string{"us-east-1", "us-west-2"}, map[string]string{"us-east-1": ""}
		}},
		{"encrypt_boot: an encrypted image cannot be public", func(o *Options) { o.Encrypt, o.Groups = true, []string{"all"} }},
		{"kms_key_id: an image that is encrypted", func(o *Options) { o.Encrypt, o.Users = true, []string{"123456789012"} }},
		{"ami_users: ", func(o *Options) { o.Users = []string{"me"} }},
		{"snapshot_users: ", func(o *Options) { o.SnapshotUsers = []string{"12345678901"} }},
		{"ami_groups: ", func(o *Options) { o.Groups = []string{"none"} }},
		{"snapshot_groups: ", func(o *Options) { o.SnapshotGroups = []string{"ALL"} }},
		{"ami_org_arns: ", func(o *Options) { o.OrgARNs = []string{"o-1"} }},
		{"ami_ou_arns: ", func(o *Options) { o.OUARNs = []string{"ou-1"} }},
		{"deprecate_at: ", func(o *Options) { o.DeprecateAt = "tomorrow" }},
		{"force_delete_snapshot: ", func(o *Options) { o.ForceDeleteSnapshot = true }},
		{"uefi_data: ", func(o *Options) { o.UefiData = "%%%" }},
		{"uefi_data: ", func(o *Options) { o.UefiData = "AAAA" }},
		{"parent_snapshot_id: ", func(o *Options) { o.Parent = "first" }},
		{"skip_create_ami: ", func(o *Options) { o.SkipCreate, o.Regions = true, []string{"us-east-1"} }},
	} {
		o := Options{Access: Access{Region: "eu-central-1"}}
		if errs := o.Check(); len(errs) > 0 {
			t.Fatal(errs)
		}
		c.with(&o)
		if errs := o.Check(); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), c.key) {
			t.Errorf("%v, want one with %q", errs, c.key)
		}
	}
	for _, r := range []string{"us-gov-west-1", "cn-north-1", "ap-southeast-5", "il-central-1", "us-iso-east-1"} {
		if errs := (Options{Access: Access{Region: r}}).Check(); len(errs) > 0 {
			t.Error(errs)
		}
	}
	if errs := (Options{Access: Access{Region: "mars", AnyRegion: true}}).Check(); len(errs) > 0 {
		t.Error(errs)
	}
}
