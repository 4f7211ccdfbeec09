// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/compose/budget"
)

// Rules of Google's names. Project: resource manager, "Creating and managing
// projects", with the older form of a domain before it. Bucket: Cloud Storage,
// "Bucket naming guidelines". Image, family, labels: Compute Engine's API v1.
var (
	projectRE = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$`)
	bucketRE  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$`)
	nameRE    = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)
	labelRE   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	valueRE   = regexp.MustCompile(`^[a-z0-9_-]{0,63}$`)
	placeRE   = regexp.MustCompile(`^[a-z][a-z0-9-]{1,40}$`)
	featureRE = regexp.MustCompile(`^[A-Z][A-Z0-9_]{2,60}$`)
	memberRE  = regexp.MustCompile(`^(user|group|serviceAccount|domain|principal|principalSet):[^\s]{1,500}$`)
	kmsRE     = regexp.MustCompile(`^projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+(/cryptoKeyVersions/[0-9]+)?$`)
	accountRE = regexp.MustCompile(`^[^@\s]+@[^@\s]+$`)
	licenseRE = regexp.MustCompile(`^(https://\S+/)?projects/[^/\s]+/global/licenses/[^/\s]+$`)
	// objectRE is stricter than Google: the name is part of an address.
	objectRE   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,900}$`)
	fileRE     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,180}\.tar\.gz$`)
	notName    = regexp.MustCompile(`[^a-z0-9]+`)
	mostLabels = 64
)

// Name is the image's name for a release: what Google allows of it.
func Name(release string) string {
	n := strings.Trim(notName.ReplaceAllString(strings.ToLower(release), "-"), "-")
	if n == "" || n[0] < 'a' {
		n = strings.TrimSuffix("image-"+n, "-")
	}
	return n
}

func (u Upload) withDefaults(release string) Upload {
	if u.ImageName == "" {
		u.ImageName = Name(release)
	}
	if u.Description == "" {
		u.Description = release
	}
	if u.Timeout == 0 {
		u.Timeout = DefaultTimeout
	}
	if u.StateTimeout == 0 {
		u.StateTimeout = DefaultStateTimeout
	}
	return u
}

// Check reports every bad value, each with the name of its option. It asks
// nobody and reads no file.
func (u Upload) Check() error {
	var bad []error
	report := func(key, format string, args ...any) {
		bad = append(bad, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	switch {
	case u.Project == "":
		report("project_id", "is not set but bucket is: an image needs both; set skip_upload for the file alone")
	case !projectRE.MatchString(u.Project):
		report("project_id", "%q is not the ID of a project: it has 6 to 30 of a-z, 0-9 and -, such as \"my-project\" (not the number, not the name)", u.Project)
	}
	switch {
	case u.Bucket == "":
		report("bucket", "is not set but project_id is: an image needs both; set skip_upload for the file alone")
	case strings.HasPrefix(u.Bucket, "gs://"):
		report("bucket", "%q is an address: leave out gs://", u.Bucket)
	case !bucketRE.MatchString(u.Bucket):
		report("bucket", "%q is not the name of a bucket", u.Bucket)
	}
	if u.Object != "" && !objectRE.MatchString(u.Object) {
		report("gcs_object_name", "%q is not allowed: letters, digits, '.', '_', '-' and '/' only, and a letter or digit first", u.Object)
	}
	u.checkImage(report)
	u.checkAccess(report)
	return errors.Join(bad...)
}

func (u Upload) checkImage(report func(key, format string, args ...any)) {
	const name = "%q is not allowed: 1 to 63 of a-z, 0-9 and -, starting with a letter, not ending with -"
	if u.ImageName != "" && !nameRE.MatchString(u.ImageName) {
		report("image_name", name, u.ImageName)
	}
	if u.Family != "" && !nameRE.MatchString(u.Family) {
		report("image_family", name, u.Family)
	}
	if len(u.Description) > 2048 {
		report("image_description", "has %d bytes, at most 2048 are allowed", len(u.Description))
	}
	if len(u.Labels) > mostLabels {
		report("image_labels", "%d labels, at most %d are allowed", len(u.Labels), mostLabels)
	}
	for _, k := range slices.Sorted(maps.Keys(u.Labels)) {
		if v := u.Labels[k]; !labelRE.MatchString(k) || !valueRE.MatchString(v) {
			report("image_labels", "%q = %q is not allowed: at most 63 of a-z, 0-9, _ and - each, the key starting with a letter", k, v)
		}
	}
	if len(u.StorageLocations) > 1 {
		report("image_storage_locations", "%d are given, an image is kept in one region or multi-region", len(u.StorageLocations))
	}
	for _, l := range u.StorageLocations {
		if !placeRE.MatchString(l) {
			report("image_storage_locations", "%q is no location: name a region such as \"europe-west1\" or a multi-region such as \"eu\"", l)
		}
	}
	for _, l := range u.Licenses {
		if !licenseRE.MatchString(l) {
			report("image_licenses", "%q is no license: write it like \"projects/NAME/global/licenses/NAME\"", l)
		}
	}
	for _, f := range u.Features {
		if !featureRE.MatchString(f) || f == "WINDOWS" {
			report("image_guest_os_features", "%q is no feature of this guest: write it like \"SEV_CAPABLE\"", f)
		}
	}
	if u.KMSKey != "" && !kmsRE.MatchString(u.KMSKey) {
		report("image_kms_key", "%q is no key: write it like \"projects/P/locations/L/keyRings/R/cryptoKeys/K\"", u.KMSKey)
	}
	if u.KMSServiceAccount != "" && (u.KMSKey == "" || !accountRE.MatchString(u.KMSServiceAccount)) {
		report("image_kms_service_account", "%q: name the e-mail address of a service account, and image_kms_key with it", u.KMSServiceAccount)
	}
	if u.SecureBoot != nil {
		if err := u.SecureBoot.check(); err != nil {
			report("secure_boot", "%v", err)
		}
	}
}

func (u Upload) checkAccess(report func(key, format string, args ...any)) {
	for _, m := range u.Members {
		switch {
		case m == "allUsers" || m == "allAuthenticatedUsers":
			report("image_members", "%q: set image_public instead", m)
		case !memberRE.MatchString(m):
			report("image_members", "%q is nobody: write it like \"user:jo@example.com\", \"group:...\", \"serviceAccount:...\" or \"domain:example.com\"", m)
		}
	}
	u.Credentials.check(report)
	for _, e := range [][2]string{{"storage_endpoint", u.StorageEndpoint}, {"compute_endpoint", u.ComputeEndpoint}} {
		if _, err := endpoint(e[1], ""); err != nil {
			report(e[0], "%v", err)
		}
	}
	if u.Timeout < 0 || u.StateTimeout < 0 {
		report("timeout", "a time below zero is over before anything begins: give one like \"2h\"")
	}
}

// Check reports every bad value, each with the name of its option.
func (c Config) Check() error {
	var bad []error
	if c.File != "" && !fileRE.MatchString(c.File) {
		bad = append(bad, fmt.Errorf("file: %q is not allowed: it ends with .tar.gz, lies in the output folder, and has letters, digits, '.', '_' and '-' only", c.File))
	}
	if _, err := budget.SizeOf(c.Size); err != nil {
		bad = append(bad, fmt.Errorf("size: %w", err))
	}
	if c.Upload != nil {
		bad = append(bad, c.Upload.Check())
	}
	return errors.Join(bad...)
}
