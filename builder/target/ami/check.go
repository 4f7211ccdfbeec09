// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/images/ebs"
)

// What values may look like, from the references of the EC2 and EBS APIs.
var (
	amiNameRE  = regexp.MustCompile(`^[A-Za-z0-9()\[\] ./\-'@_]{3,128}$`)
	regionRE   = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`)
	accountRE  = regexp.MustCompile(`^[0-9]{12}$`)
	orgARNRE   = regexp.MustCompile(`^arn:aws[a-z-]*:organizations::[0-9]{12}:organization/o-[a-z0-9]{10,32}$`)
	ouARNRE    = regexp.MustCompile(`^arn:aws[a-z-]*:organizations::[0-9]{12}:ou/o-[a-z0-9]{10,32}/ou-[0-9a-z]{4,32}-[0-9a-z]{8,32}$`)
	roleARNRE  = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/.{1,512}$`)
	snapshotRE = regexp.MustCompile(`^snap-[0-9a-f]{1,59}$`)
	keyARNRE   = regexp.MustCompile(`^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.{1,256}$`)
)

const (
	maxTags        = 50 // on one resource
	maxDescription = 255
	maxUefiData    = 64000
)

// ownTags start with this; they let a later run find what an earlier one made.
const ownTags = "holdfast:"

// Check lists what is wrong with the options, one error for each key, without
// asking anyone. A Name that is still empty is not wrong.
func (o Options) Check() []error {
	c := &checker{}
	c.access(o)
	if o.Name != "" && !amiNameRE.MatchString(o.Name) {
		c.bad("ami_name", "%q is not a name that EC2 takes: use 3 to 128 of letters, digits, space and ( ) [ ] . / - ' @ _", o.Name)
	}
	if len(o.Description) > maxDescription {
		c.bad("ami_description", "has %d bytes, EC2 takes at most %d", len(o.Description), maxDescription)
	}
	c.tags("tags", o.Tags)
	c.tags("snapshot_tags", o.SnapshotTags)
	c.volume(o)
	c.encryption(o)
	c.sharing(o)
	if o.DeprecateAt != "" {
		if _, err := time.Parse(time.RFC3339, o.DeprecateAt); err != nil {
			c.bad("deprecate_at", "%q is not a time: write it like \"2030-12-31T00:00:00Z\"", o.DeprecateAt)
		}
	}
	if o.ForceDeleteSnapshot && !o.ForceDeregister {
		c.bad("force_delete_snapshot", "needs force_deregister: a snapshot cannot be deleted under an image")
	}
	if len(o.UefiData) > maxUefiData {
		c.bad("uefi_data", "has %d characters, EC2 takes at most %d", len(o.UefiData), maxUefiData)
	} else if b, err := base64.StdEncoding.DecodeString(o.UefiData); err != nil || len(b) > 0 && !strings.HasPrefix(string(b), "AMZNUEFI") {
		c.bad("uefi_data", "is not base64 of a variable store (AMZNUEFI...)")
	}
	if o.Parent != "" && o.Parent != Last && !snapshotRE.MatchString(o.Parent) {
		c.bad("parent_snapshot_id", "%q is neither the id of a snapshot (snap-...) nor %q", o.Parent, Last)
	}
	if o.SkipCreate && (len(o.Regions) > 0 || o.shared()) {
		c.bad("skip_create_ami", "makes a snapshot alone, which is neither copied nor shared: leave ami_regions and those keys out")
	}
	return c.errs
}

type checker struct{ errs []error }

func (c *checker) bad(key, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
}

func (c *checker) access(o Options) {
	for _, r := range append([]string{o.Region}, o.Regions...) {
		key := "ami_regions"
		if r == o.Region {
			key = "region"
		}
		if r != "" && !o.AnyRegion && !regionRE.MatchString(r) {
			c.bad(key, "%q does not look like a region such as \"eu-central-1\"; skip_region_validation takes it all the same", r)
		}
	}
	if slices.Contains(o.Regions, "") {
		c.bad("ami_regions", "has an empty name in it")
	}
	if (o.AccessKey == "") != (o.SecretKey == "") {
		c.bad("access_key", "goes with secret_key: give both, or neither to use the environment or a profile")
	}
	if o.Token != "" && o.AccessKey == "" {
		c.bad("token", "goes with access_key and secret_key")
	}
	if o.RoleARN != "" && !roleARNRE.MatchString(o.RoleARN) {
		c.bad("assume_role", "%q is not the ARN of a role", o.RoleARN)
	} else if o.RoleARN == "" && o.ExternalID+o.RoleSession != "" {
		c.bad("assume_role", "has no role_arn")
	}
	for key, v := range map[string]string{"custom_endpoint_ec2": o.EC2, "custom_endpoint_ebs": o.EBS} {
		if u, err := url.Parse(v); v != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			c.bad(key, "%q is not an address: it starts with https:// or http://", v)
		}
	}
	if (o.EC2 == "") != (o.EBS == "") {
		c.bad("custom_endpoint_ebs", "goes with custom_endpoint_ec2: with one of them alone, image and snapshot would lie in two places")
	}
}

func (c *checker) tags(key string, tags map[string]string) {
	// Room for our own and Name.
	if len(tags) > maxTags-len(ownKeys)-1 {
		c.bad(key, "has %d tags, there is room for %d", len(tags), maxTags-len(ownKeys)-1)
	}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		switch {
		case k == "" || len([]rune(k)) > 127 || len([]rune(tags[k])) > 256:
			c.bad(key, "%.40q: a key has 1 to 127 characters, a value at most 256", k)
		case strings.HasPrefix(strings.ToLower(k), "aws:"), strings.HasPrefix(k, ownTags):
			c.bad(key, "%q: keys that start with aws: or %s are not yours to set", k, ownTags)
		}
	}
}

func (c *checker) volume(o Options) {
	if _, err := budget.SizeOf(o.Size); err != nil {
		c.bad("size", "%v", err)
	}
	if o.VolumeGiB < 0 || o.VolumeGiB > ebs.MaxGiB {
		c.bad("volume_size", "%d GiB is out of range: 1 to %d, or leave it out", o.VolumeGiB, ebs.MaxGiB)
	}
	if !slices.Contains([]string{"", "gp2", "gp3", "io1", "io2", "standard"}, o.VolumeType) {
		c.bad("volume_type", "%q cannot hold a system disk: use gp3, gp2, io1, io2 or standard", o.VolumeType)
	}
	io := o.VolumeType == "io1" || o.VolumeType == "io2"
	gp3 := o.VolumeType == "" || o.VolumeType == "gp3"
	switch {
	case o.IOPS < 0 || o.IOPS > 256000:
		c.bad("iops", "%d is out of range", o.IOPS)
	case io && o.IOPS == 0:
		c.bad("iops", "is needed for volume_type %s", o.VolumeType)
	case o.IOPS > 0 && !io && !gp3:
		c.bad("iops", "is not for volume_type %s", o.VolumeType)
	}
	if o.Throughput < 0 || o.Throughput > 2000 || o.Throughput > 0 && (!gp3 || o.Throughput < 125) {
		c.bad("throughput", "is for volume_type gp3 alone, 125 to 2000 MiB/s")
	}
}

func (c *checker) encryption(o Options) {
	if !o.Encrypt && (o.KMSKey != "" || len(o.RegionKMSKeys) > 0) {
		c.bad("encrypt_boot", "is needed for kms_key_id and region_kms_key_ids")
	}
	if o.KMSKey != "" && !keyARNRE.MatchString(o.KMSKey) {
		c.bad("kms_key_id", "%q is not the ARN of a KMS key (arn:aws:kms:REGION:ACCOUNT:key/...): StartSnapshot takes nothing shorter", o.KMSKey)
	}
	for _, r := range slices.Sorted(maps.Keys(o.RegionKMSKeys)) {
		if !slices.Contains(o.Regions, r) && r != o.Region {
			c.bad("region_kms_key_ids", "%q is not one of ami_regions", r)
		}
	}
	if len(o.RegionKMSKeys) > 0 {
		for _, r := range o.Regions {
			if _, ok := o.RegionKMSKeys[r]; !ok && r != o.Region {
				c.bad("region_kms_key_ids", "has no key for %q of ami_regions: name one, or \"\" for the account's own", r)
			}
		}
	}
	if !o.Encrypt || !o.shared() {
		return
	}
	if o.public() {
		c.bad("encrypt_boot", "an encrypted image cannot be public: leave it out, or ami_groups and snapshot_groups")
		return
	}
	for _, r := range o.all() {
		if o.keyIn(r) == "" {
			c.bad("kms_key_id", "an image that is encrypted with the account's own key cannot be shared: name a key for %s, and let the others use it", or(r, "the region"))
		}
	}
}

func (c *checker) sharing(o Options) {
	for _, list := range []struct {
		key   string
		names []string
		re    *regexp.Regexp
		what  string
	}{
		{"ami_users", o.Users, accountRE, "an account (12 digits)"},
		{"snapshot_users", o.SnapshotUsers, accountRE, "an account (12 digits)"},
		{"ami_groups", o.Groups, regexp.MustCompile(`^all$`), "a group: there is only \"all\", which makes the image public"},
		{"snapshot_groups", o.SnapshotGroups, regexp.MustCompile(`^all$`), "a group: there is only \"all\", which makes the snapshot public"},
		{"ami_org_arns", o.OrgARNs, orgARNRE, "the ARN of an organization"},
		{"ami_ou_arns", o.OUARNs, ouARNRE, "the ARN of an organizational unit"},
	} {
		for _, n := range list.names {
			if !list.re.MatchString(n) {
				c.bad(list.key, "%q is not %s", n, list.what)
			}
		}
	}
}

// all is the region of the upload and those of copies, each once.
func (o Options) all() []string {
	list := []string{o.Region}
	for _, r := range o.Regions {
		if !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	return list
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
