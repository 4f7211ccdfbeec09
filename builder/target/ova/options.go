// SPDX-License-Identifier: Apache-2.0

package ova

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/images/ova"
	"github.com/holdfast/holdfast/images/ovf"
	"github.com/holdfast/holdfast/images/sign"
)

// Options say what the machine is and how the file is called; the zero value
// makes one of the smallest size profile, named after the release.
type Options struct {
	// File is the name of the OVA in the output folder; by default
	// <release>.ova.
	File string
	// Name of the machine, by default the release's name and version; so are
	// Product and Version one by one.
	Name, Product, Version string
	// Vendor, the two addresses and Description are shown by importers.
	Vendor, ProductURL, VendorURL, Description string
	// EULAFile holds a licence as UTF-8 text, which an importer has accepted.
	EULAFile string

	// Size is the size profile; CPUs, MemoryMiB and DiskSize (bytes) override
	// it where they are not 0.
	Size      string
	CPUs      int
	MemoryMiB int
	DiskSize  int64
	// VMXVersion is VMware's hardware version, "17" or "vmx-17"; GuestOS its
	// identifier of the guest system.
	VMXVersion, GuestOS string
	// Networks names the network of each NIC; by default one, "VM Network".
	Networks []string
	// SecureBoot turns it on where the OVA is imported.
	SecureBoot bool
	// Properties are values that the site admin finds filled in.
	Properties map[string]string

	// SigningKey and SigningCert are PEM files of an RSA pair that signs the
	// manifest; both or neither.
	SigningKey, SigningCert string
}

// fields are the option that each field of ovf.Options comes from.
var fields = map[string]string{
	"Name": "name", "Product": "product", "Vendor": "vendor", "Version": "product_version", "ProductURL": "product_url",
	"VendorURL": "vendor_url", "Description": "description", "EULA": "eula_file", "CPUs": "cpus", "MemoryMiB": "memory",
	"Capacity": "disk_size", "DiskFile": "file", "Hardware": "vmx_version", "GuestOS": "guest_os", "Networks": "networks",
	"Properties": "properties",
}

var fileRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,79}\.ova$`)

// Check says what is wrong, with the option's name, before any work. It reads
// EULA and signing pair and asks nobody.
func (o Options) Check() error {
	_, err := o.resolve("release", "1.0.0", nil)
	return err
}

// resolved are options with everything looked up.
type resolved struct {
	file   string
	ovf    ovf.Options
	signer *ova.Signer
	// diskSize is what was asked for; profileDisk what the profile has. Bytes.
	diskSize, profileDisk int64
}

// sizes are those the release is made for, nil where that is not known yet.
func (o Options) resolve(name, version string, sizes []budget.Size) (*resolved, error) {
	size, err := budget.SizeIn(sizes, o.Size)
	if err != nil {
		return nil, fmt.Errorf("size: %w", err)
	}
	r := &resolved{file: or(o.File, name+"-"+version+".ova"), diskSize: o.DiskSize, profileDisk: int64(size.DiskGiB) << 30}
	if !fileRE.MatchString(r.file) {
		return nil, fmt.Errorf("file: %q is not the name of an OVA: use at most 80 of letters, digits, '.', '_' and '-', and .ova", r.file)
	}
	r.ovf = ovf.Options{
		Name: or(o.Name, name+"-"+version), Product: or(o.Product, name), Version: or(o.Version, version),
		Vendor: o.Vendor, ProductURL: o.ProductURL, VendorURL: o.VendorURL, Description: o.Description,
		CPUs: size.CPUs, MemoryMiB: size.MemoryMiB, Capacity: 1,
		DiskFile: ova.DiskName(r.base()), Hardware: hardware(o.VMXVersion), GuestOS: o.GuestOS,
		Networks: o.Networks, SecureBoot: o.SecureBoot, Properties: o.Properties,
	}
	if o.CPUs != 0 {
		r.ovf.CPUs = o.CPUs
	}
	if o.MemoryMiB != 0 {
		r.ovf.MemoryMiB = o.MemoryMiB
	}
	if o.EULAFile != "" {
		if r.ovf.EULA, err = readText(o.EULAFile); err != nil {
			return nil, fmt.Errorf("eula_file: %w", err)
		}
	}
	if err := r.ovf.Check(); err != nil {
		return nil, named(err)
	}
	r.signer, err = o.signer()
	return r, err
}

// base is the name of the package's members, without endings.
func (r *resolved) base() string { return strings.TrimSuffix(r.file, ".ova") }

// capacity is the length of the machine's disk in bytes. A profile's disk gives
// way to a longer disk.raw, what somebody asked for does not.
func (r *resolved) capacity(d *target.Disk) (int64, error) {
	if r.diskSize != 0 {
		return d.Capacity("disk_size", r.diskSize, mib)
	}
	return d.Capacity("disk_size", max(r.profileDisk, d.Size), mib)
}

func (o Options) signer() (*ova.Signer, error) {
	switch {
	case o.SigningKey == "" && o.SigningCert == "":
		return nil, nil
	case o.SigningKey == "":
		return nil, fmt.Errorf("signing_key: is not set but signing_cert is: name the private key that belongs to %s, or leave out both", o.SigningCert)
	case o.SigningCert == "":
		return nil, fmt.Errorf("signing_cert: is not set but signing_key is: name the certificate that belongs to %s, or leave out both", o.SigningKey)
	}
	key, cert, err := sign.LoadPair(o.SigningKey, o.SigningCert)
	if err != nil {
		return nil, fmt.Errorf("signing_key, signing_cert: %w", err)
	}
	return &ova.Signer{Key: key, Certificate: cert}, nil
}

// named gives an error of the envelope the option's name.
func named(err error) error {
	var e *ovf.Error
	if errors.As(err, &e) && fields[e.Field] != "" {
		return fmt.Errorf("%s: %s", fields[e.Field], e.Text)
	}
	return err
}

func hardware(version string) string {
	if version == "" || strings.HasPrefix(version, "vmx-") {
		return version
	}
	return "vmx-" + version
}

// readText reads a small file.
func readText(path string) (string, error) {
	const limit = 1 << 20
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("there is no file %s: name a text file, or leave it out", path)
	} else if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return "", err
	}
	if len(b) > limit {
		return "", fmt.Errorf("%s is larger than 1 MiB", path)
	}
	return string(b), nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
