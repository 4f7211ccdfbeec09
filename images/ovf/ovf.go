// SPDX-License-Identifier: Apache-2.0

// Package ovf writes the OVF 1.x envelope of a machine with one disk: what an
// importer creates, and what it asks the site admin. The document is DMTF
// DSP0243 1.1 with VMware's and VirtualBox's own elements where the standard has
// none, built by encoding/xml. Version 2.0 is not written: vSphere refuses it.
package ovf

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Version of the envelope; it rises when the same options give other bytes.
const Version = 1

// Defaults for what Options leaves out.
const (
	// DefaultHardware is what vSphere 7.0 and newer run.
	DefaultHardware = "vmx-17"
	DefaultGuestOS  = "other4xLinux64Guest"
	DefaultNetwork  = "VM Network"
)

// Options say what the machine is.
type Options struct {
	// Name of the machine, 1 to 80 characters as vSphere allows.
	Name string
	// Product, Vendor and Version describe what is inside; ProductURL,
	// VendorURL and Description may be empty.
	Product, Vendor, Version, ProductURL, VendorURL, Description string
	// EULA is a licence text that the importer shows and has accepted.
	EULA string

	// CPUs, MemoryMiB (whole 4 MiB) and Capacity of the disk in bytes.
	CPUs, MemoryMiB int
	Capacity        int64
	// DiskFile is the VMDK's file name, DiskSize its exact length in bytes, and
	// Populated how much of the disk holds data, in bytes.
	DiskFile            string
	DiskSize, Populated int64
	// ID makes the UUIDs that VirtualBox wants; the same text gives the same.
	ID string

	// Hardware is VMware's hardware version, GuestOS its guest identifier.
	Hardware, GuestOS string
	// Networks names the network of each NIC, at least one.
	Networks []string
	// SecureBoot asks for it. Hypervisors trust Microsoft's keys then, so only
	// a disk signed through those boots.
	SecureBoot bool
	// Properties are values to start with, by key; see Properties.
	Properties map[string]string
}

var (
	nameRE     = regexp.MustCompile(`^[^/\\%\x00-\x1f]{1,80}$`)
	fileRE     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$`)
	hardwareRE = regexp.MustCompile(`^vmx-(1[3-9]|2[0-9])$`)
	guestRE    = regexp.MustCompile(`^[A-Za-z0-9_]{1,60}Guest$`)
)

// Error says what is wrong with one field of Options.
type Error struct {
	// Field is its name, such as "MemoryMiB".
	Field, Text string
}

func (e *Error) Error() string { return e.Field + ": " + e.Text }

func bad(field, format string, args ...any) error {
	return &Error{Field: field, Text: fmt.Sprintf(format, args...)}
}

// Check fills in defaults and says what is wrong, for the first field that is;
// the error is an *Error. It does not look at DiskFile's sizes.
func (o *Options) Check() error {
	if o.Hardware == "" {
		o.Hardware = DefaultHardware
	}
	if o.GuestOS == "" {
		o.GuestOS = DefaultGuestOS
	}
	if len(o.Networks) == 0 {
		o.Networks = []string{DefaultNetwork}
	}
	switch {
	case !nameRE.MatchString(o.Name) || strings.TrimSpace(o.Name) != o.Name:
		return bad("Name", "%q is not a machine's name: use 1 to 80 characters, none of them /, \\ or %%", o.Name)
	case o.CPUs < 1 || o.CPUs > 768:
		return bad("CPUs", "%d is out of range: use 1 to 768", o.CPUs)
	case o.MemoryMiB < 1024 || o.MemoryMiB > 24<<20 || o.MemoryMiB%4 != 0:
		return bad("MemoryMiB", "%d MiB will not do: use 1024 or more, a multiple of 4", o.MemoryMiB)
	case o.Capacity <= 0:
		return bad("Capacity", "a disk of %d bytes", o.Capacity)
	case !fileRE.MatchString(o.DiskFile) || o.DiskFile != filepath.Base(o.DiskFile):
		return bad("DiskFile", "%q is not a plain file name: use letters, digits, '.', '_' and '-'", o.DiskFile)
	case !hardwareRE.MatchString(o.Hardware):
		return bad("Hardware", "%q is not a hardware version: write it like vmx-17; UEFI with Secure Boot needs vmx-13 or newer", o.Hardware)
	case !guestRE.MatchString(o.GuestOS):
		return bad("GuestOS", "%q is not one of vSphere's identifiers, such as %s", o.GuestOS, DefaultGuestOS)
	case len(o.Networks) > 10:
		return bad("Networks", "%d are too many: vSphere allows 10", len(o.Networks))
	}
	for i, n := range o.Networks {
		if !nameRE.MatchString(n) || strings.TrimSpace(n) != n || slices.Contains(o.Networks[:i], n) {
			return bad("Networks", "%q will not do: each needs a name of its own, 1 to 80 characters, none of them /, \\ or %%", n)
		}
	}
	if err := checkProperties(o.Properties); err != nil {
		return err
	}
	return o.checkTexts()
}

// checkTexts refuses what encoding/xml would silently replace.
func (o *Options) checkTexts() error {
	texts := [][2]string{
		{"Name", o.Name}, {"Product", o.Product}, {"Vendor", o.Vendor}, {"Version", o.Version}, {"ProductURL", o.ProductURL},
		{"VendorURL", o.VendorURL}, {"Description", o.Description}, {"EULA", o.EULA},
	}
	for _, n := range o.Networks {
		texts = append(texts, [2]string{"Networks", n})
	}
	for _, p := range Properties() {
		texts = append(texts, [2]string{"Properties", o.Properties[p.Key]})
	}
	for _, t := range texts {
		if len(t[1]) > 1<<20 {
			return bad(t[0], "%d bytes of text are too many: use at most 1 MiB", len(t[1]))
		}
		if !utf8.ValidString(t[1]) || strings.ContainsFunc(t[1], notXML) {
			return bad(t[0], "the text holds a character that XML can't: save it as UTF-8 text")
		}
	}
	return nil
}

// notXML is the complement of production [2] Char of XML 1.0.
func notXML(r rune) bool {
	return r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff || r >= 0xd800 && r <= 0xdfff
}

// Marshal writes the envelope. The same options give the same bytes, and its
// length differs only by the digits of DiskSize and Populated.
func Marshal(o Options) ([]byte, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	e.Indent("", "  ")
	if err := e.Encode(newEnvelope(o)); err != nil {
		return nil, err
	}
	if err := e.Close(); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
