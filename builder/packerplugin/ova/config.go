// SPDX-License-Identifier: Apache-2.0

//go:generate go tool -modfile=../../packer/go.mod packer-sdc mapstructure-to-hcl2 -type Config
//go:generate mkdir -p ../../../build/packer-plugin-holdfast/builder/packerplugin/ova ../../../docs/partials
//go:generate cp config.go ../../../build/packer-plugin-holdfast/builder/packerplugin/ova
//go:generate go tool -modfile=../../packer/go.mod packer-sdc struct-markdown ../../../build/packer-plugin-holdfast/builder/packerplugin/ova/config.go
//go:generate cp -r ../../../build/packer-plugin-holdfast/docs-partials/. ../../../docs/partials
//go:generate rm -rf ../../../build/packer-plugin-holdfast

package postova

import (
	"fmt"

	"github.com/hashicorp/packer-plugin-sdk/common"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/hashicorp/packer-plugin-sdk/template/interpolate"

	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/builder/target/ova"
)

// Config is the body of `post-processor "holdfast-ova" { }`. Everything has a
// default; relative paths start at the folder Packer runs in.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// Name of the OVA file, ending in `.ova`. It is made in the output folder of
	// the bake. Default: the release's name and version, such as
	// `demo-1.0.0.ova`.
	File string `mapstructure:"file"`
	// Name of the machine where it is imported. Default: the release's name and
	// version.
	Name string `mapstructure:"name"`
	// Name of the product, as importers show it. Default: the release's name.
	Product string `mapstructure:"product"`
	// Version of the product, as importers show it. Default: the release's
	// version.
	ProductVersion string `mapstructure:"product_version"`
	// Address of the product's page on the web.
	ProductURL string `mapstructure:"product_url"`
	// Name of the vendor.
	Vendor string `mapstructure:"vendor"`
	// Address of the vendor's page on the web.
	VendorURL string `mapstructure:"vendor_url"`
	// A description of the machine, which importers keep as its notes.
	Description string `mapstructure:"description"`
	// A text file, in UTF-8, with a licence that is shown before the import and
	// has to be accepted.
	EULAFile string `mapstructure:"eula_file"`
	// The size profile: `XS`, `S`, `M`, `L` or `XL`. It decides processors,
	// memory and disk. Default: `XS`, which has 2 processors, 4 GiB of memory
	// and a disk of 20 GiB.
	Size string `mapstructure:"size"`
	// Number of virtual processors, in place of the size profile's.
	CPUs int `mapstructure:"cpus"`
	// Memory in MiB, a multiple of 4, in place of the size profile's.
	Memory int `mapstructure:"memory"`
	// Length of the machine's disk, such as `30GiB`, in place of the size
	// profile's. It can't be less than that of disk.raw; the box grows into it.
	DiskSize string `mapstructure:"disk_size"`
	// VMware's virtual hardware version, such as `19` or `vmx-19`. Default:
	// `vmx-17`, which vSphere 7.0 and newer run.
	VMXVersion string `mapstructure:"vmx_version"`
	// VMware's identifier of the guest system. Default: `other4xLinux64Guest`.
	GuestOS string `mapstructure:"guest_os"`
	// Names of the networks that the machine is connected to, one network
	// adapter for each. Importers ask what they are on their side. Default:
	// `["VM Network"]`.
	Networks []string `mapstructure:"networks"`
	// Turn Secure Boot on where the OVA is imported. Hypervisors trust
	// Microsoft's keys and not yours, so the machine starts only where your
	// certificate is enrolled. Default: `false`.
	SecureBoot bool `mapstructure:"secure_boot"`
	// Values that the site admin finds filled in, by the property's key:
	// `hostname`, `address`, `gateway`, `dns`, `ntp`, `proxy`, `ssh_keys`,
	// `config`. They can be read by everyone who gets the OVA.
	Properties map[string]string `mapstructure:"properties"`
	// PEM file with the RSA key that signs the OVA's manifest. Importers then
	// name the publisher. Default: no signature.
	SigningKey string `mapstructure:"signing_key"`
	// PEM file with the certificate that belongs to `signing_key`.
	SigningCert string `mapstructure:"signing_cert"`

	ctx interpolate.Context
}

// decode fills c from what Packer hands over.
func (c *Config) decode(raws []any) error {
	return config.Decode(c, &config.DecodeOpts{
		PluginType:         BuilderID,
		Interpolate:        true,
		InterpolateContext: &c.ctx,
	}, raws...)
}

// options turns c into the target's, and checks them.
func (c *Config) options() (ova.Options, error) {
	disk, err := target.ParseSize(c.DiskSize)
	if err != nil {
		return ova.Options{}, fmt.Errorf("disk_size: %w", err)
	}
	o := ova.Options{
		File: c.File, Name: c.Name, Product: c.Product, Version: c.ProductVersion, ProductURL: c.ProductURL,
		Vendor: c.Vendor, VendorURL: c.VendorURL, Description: c.Description, EULAFile: c.EULAFile,
		Size: c.Size, CPUs: c.CPUs, MemoryMiB: c.Memory, DiskSize: disk,
		VMXVersion: c.VMXVersion, GuestOS: c.GuestOS, Networks: c.Networks, SecureBoot: c.SecureBoot,
		Properties: c.Properties, SigningKey: c.SigningKey, SigningCert: c.SigningCert,
	}
	return o, o.Check()
}
