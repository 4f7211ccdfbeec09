// SPDX-License-Identifier: Apache-2.0

//go:generate go tool -modfile=../../packer/go.mod packer-sdc mapstructure-to-hcl2 -type Config
//go:generate mkdir -p ../../../build/packer-plugin-holdfast/builder/packerplugin/gce ../../../docs/partials
//go:generate cp config.go ../../../build/packer-plugin-holdfast/builder/packerplugin/gce
//go:generate go tool -modfile=../../packer/go.mod packer-sdc struct-markdown ../../../build/packer-plugin-holdfast/builder/packerplugin/gce/config.go
//go:generate cp -r ../../../build/packer-plugin-holdfast/docs-partials/. ../../../docs/partials
//go:generate rm -rf ../../../build/packer-plugin-holdfast

package postgce

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
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/builder/target/gce"
	"github.com/holdfast/holdfast/images/uefivars"
)

// Config is the body of `post-processor "holdfast-gce" { }`. Without
// `project_id` and `bucket` it makes a file and asks nobody; with them it makes
// an image of that file in Google Compute Engine.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// Name of the archive in the output folder, ending with `.tar.gz`. By
	// default `NAME-VERSION-gce.tar.gz`.
	File string `mapstructure:"file"`
	// Length of the disk of machines made of the image, such as `20GiB`, rounded
	// up to whole GiB. By default that of `size`.
	DiskSize string `mapstructure:"disk_size"`
	// Size profile that decides the length of the disk: `XS` (the default),
	// `S`, `M`, `L` or `XL`.
	Size string `mapstructure:"size"`

	// Make the file only, even where `project_id` and `bucket` are set.
	SkipUpload bool `mapstructure:"skip_upload"`
	// ID of the project that gets the image.
	ProjectID string `mapstructure:"project_id"`
	// Name of the Cloud Storage bucket that the archive goes to while the image
	// is made.
	Bucket string `mapstructure:"bucket"`
	// Name of the archive in the bucket. By default made of the image's name and
	// the archive's hash, so that a second run takes up what is there.
	GCSObjectName string `mapstructure:"gcs_object_name"`
	// Leave the archive in the bucket.
	SkipClean bool `mapstructure:"skip_clean"`

	// Name of the image. By default `NAME-VERSION`, with `-` for what Google
	// does not allow.
	ImageName string `mapstructure:"image_name"`
	// Description of the image. By default `NAME-VERSION` as it is.
	ImageDescription string `mapstructure:"image_description"`
	// Family of the image: machines made of the family get its newest image.
	ImageFamily string `mapstructure:"image_family"`
	// Labels of the image.
	ImageLabels map[string]string `mapstructure:"image_labels"`
	// Region or multi-region that keeps the image, at most one. By default the
	// multi-region nearest to the bucket.
	ImageStorageLocations []string `mapstructure:"image_storage_locations"`
	// Licenses of the image, such as `projects/NAME/global/licenses/NAME`.
	ImageLicenses []string `mapstructure:"image_licenses"`
	// Features of the guest beside `UEFI_COMPATIBLE`, `GVNIC` and
	// `VIRTIO_SCSI_MULTIQUEUE`, such as `SEV_CAPABLE`.
	ImageGuestOSFeatures []string `mapstructure:"image_guest_os_features"`
	// Cloud KMS key that encrypts the image, as
	// `projects/P/locations/L/keyRings/R/cryptoKeys/K`.
	ImageKMSKey string `mapstructure:"image_kms_key"`
	// Service account that uses `image_kms_key`. By default Compute Engine's.
	ImageKMSServiceAccount string `mapstructure:"image_kms_service_account"`
	// Replace an image of the same name. By default that is an error, before
	// anything is uploaded.
	Overwrite bool `mapstructure:"overwrite"`
	// Who may use the image, such as `user:jo@example.com`,
	// `serviceAccount:...`, `group:...` or `domain:example.com`.
	ImageMembers []string `mapstructure:"image_members"`
	// Let every Google account use the image.
	ImagePublic bool `mapstructure:"image_public"`

	// Give machines made of the image a Secure Boot key set that trusts this
	// bake: its `signing.crt` as PK, KEK and db, unless the keys below name
	// others. By default they have Google's keys, under which the image starts
	// with Secure Boot off only.
	SecureBoot bool `mapstructure:"secure_boot"`
	// Certificate (PEM or DER) of the platform key; implies `secure_boot`.
	ImagePlatformKey string `mapstructure:"image_platform_key"`
	// Certificates (PEM or DER) of key exchange keys; implies `secure_boot`.
	ImageKeyExchangeKey []string `mapstructure:"image_key_exchange_key"`
	// Certificates (PEM or DER) whose signatures are trusted; implies
	// `secure_boot`.
	ImageSignaturesDB []string `mapstructure:"image_signatures_db"`
	// Files with EFI signature lists of what must not start; implies
	// `secure_boot`.
	ImageForbiddenSignaturesDB []string `mapstructure:"image_forbidden_signatures_db"`

	// File with the JSON key of a service account, or another of Google's
	// credentials files. By default Google's usual chain:
	// `GOOGLE_APPLICATION_CREDENTIALS`, `gcloud auth application-default login`,
	// the account of the machine.
	CredentialsFile string `mapstructure:"credentials_file"`
	// The content of such a file.
	CredentialsJSON string `mapstructure:"credentials_json"`
	// An OAuth 2.0 access token.
	AccessToken string `mapstructure:"access_token"`
	// Service account to act as.
	ImpersonateServiceAccount string `mapstructure:"impersonate_service_account"`
	// Address of the Cloud Storage API in place of Google's.
	StorageEndpoint string `mapstructure:"storage_endpoint"`
	// Address of the Compute Engine API in place of Google's.
	ComputeEndpoint string `mapstructure:"compute_endpoint"`
	// Longest time for upload and image together. By default `2h`.
	Timeout time.Duration `mapstructure:"timeout"`
	// Longest time that Google may take to make the image. By default `30m`.
	StateTimeout time.Duration `mapstructure:"state_timeout"`

	ctx interpolate.Context
}

// decode fills c from what Packer hands over.
func (c *Config) decode(raws []any) error {
	err := config.Decode(c, &config.DecodeOpts{PluginType: BuilderID, Interpolate: true, InterpolateContext: &c.ctx}, raws...)
	packersdk.LogSecretFilter.Set(c.AccessToken, c.CredentialsJSON)
	return err
}

// target checks c and turns it into what builder/target/gce takes, but for the
// output folder and the keys, which are known when there is an artifact.
func (c *Config) target() (gce.Config, error) {
	out := gce.Config{File: c.File, Size: c.Size}
	var bad error
	if out.DiskSize, bad = target.ParseSize(c.DiskSize); bad != nil {
		bad = fmt.Errorf("disk_size: %w", bad)
	}
	if !c.SkipUpload && (c.ProjectID != "" || c.Bucket != "") {
		out.Upload = &gce.Upload{
			Project: c.ProjectID, Bucket: c.Bucket, Object: c.GCSObjectName, KeepObject: c.SkipClean,
			ImageName: c.ImageName, Family: c.ImageFamily, Description: c.ImageDescription, Labels: c.ImageLabels,
			StorageLocations: c.ImageStorageLocations, Licenses: c.ImageLicenses, Features: c.ImageGuestOSFeatures,
			KMSKey: c.ImageKMSKey, KMSServiceAccount: c.ImageKMSServiceAccount,
			Overwrite: c.Overwrite, Members: c.ImageMembers, Public: c.ImagePublic,
			Credentials:     gce.Credentials{File: c.CredentialsFile, JSON: c.CredentialsJSON, Token: c.AccessToken, Impersonate: c.ImpersonateServiceAccount},
			StorageEndpoint: c.StorageEndpoint, ComputeEndpoint: c.ComputeEndpoint,
			Timeout: c.Timeout, StateTimeout: c.StateTimeout,
		}
	}
	return out, errors.Join(bad, out.Check())
}

// keys is the Secure Boot key set of an output folder, nil when none is asked
// for.
func (c *Config) keys(dir string) (*gce.KeySet, error) {
	files := uefivars.Files{PK: c.ImagePlatformKey, KEK: c.ImageKeyExchangeKey, DB: c.ImageSignaturesDB, DBX: c.ImageForbiddenSignaturesDB}
	if !c.SecureBoot && files.PK == "" && len(files.KEK)+len(files.DB)+len(files.DBX) == 0 {
		return nil, nil
	}
	set, err := uefivars.Load(filepath.Join(dir, builder.CertName), files)
	if err != nil {
		return nil, fmt.Errorf("secure_boot: %w", err)
	}
	return gce.Keys(set), nil
}
