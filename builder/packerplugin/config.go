// SPDX-License-Identifier: Apache-2.0

//go:generate go tool -modfile=../packer/go.mod packer-sdc mapstructure-to-hcl2 -type Config

package packerplugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/hashicorp/packer-plugin-sdk/common"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/hashicorp/packer-plugin-sdk/template/interpolate"

	"github.com/holdfast/holdfast/builder"
)

// Config is the body of `source "holdfast" "..." { }`. Relative paths start at
// the folder Packer runs in; ${path.root} in a template makes them start at the
// template.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// Name of the release, [a-z0-9-], at most 40 characters.
	Name string `mapstructure:"name" required:"true"`
	// Version of the release, a semantic version without leading v.
	Version string `mapstructure:"version" required:"true"`
	// Stack is the Compose file.
	Stack string `mapstructure:"stack" required:"true"`
	// Lock is what `holdfast-release lock` wrote for Stack; by default
	// holdfast.lock beside the Compose file.
	Lock string `mapstructure:"lock"`
	// Layouts are OCI layout folders searched for the stack's images, in this
	// order, before any registry.
	Layouts []string `mapstructure:"layouts"`
	// Archive is a folder made by `holdfast-release lock --archive`.
	Archive string `mapstructure:"archive"`
	// Mirror is a Debian mirror to use in place of Debian's own.
	Mirror string `mapstructure:"mirror"`
	// SlotSize is the size of each root partition, such as "768MiB".
	SlotSize string `mapstructure:"slot_size"`
	// DiskSize is the least length of disk.raw, such as "10GiB".
	DiskSize string `mapstructure:"disk_size"`
	// Factory is "embedded" (the default: the disk holds the stack's images)
	// or "seed" (boxes fetch them by digest at their first boot, from
	// registries, mirrors or a layout that they are given).
	Factory string `mapstructure:"factory"`
	// ExtraPackages are Debian packages beyond those the box needs.
	ExtraPackages []string `mapstructure:"extra_packages"`
	// Epoch is the release's security epoch: boxes that have committed it
	// fetch none of a lower one.
	Epoch int `mapstructure:"epoch"`
	// MinFrom is the oldest version that boxes may come from; by default any.
	MinFrom string `mapstructure:"min_from"`
	// UpdateSource is where boxes look for later releases unless their admin
	// says otherwise; UpdateChannel is the channel, by default "stable".
	UpdateSource  string `mapstructure:"update_source"`
	UpdateChannel string `mapstructure:"update_channel"`
	// GateDeadline is how long an upgrade to this release may take to be
	// healthy, by default "15m"; GateWindow how long it must then stay so, by
	// default "10s".
	GateDeadline time.Duration `mapstructure:"gate_deadline"`
	GateWindow   time.Duration `mapstructure:"gate_window"`
	// TrustRoot is the root.json that `holdfast-release keys init` made: boxes
	// take releases that its keys vouch for, and without it none.
	TrustRoot string `mapstructure:"trust_root"`
	// SigningKey and SigningCert are PEM files. Without both a demo pair is
	// made beside the lock, with a warning; with one missing, it is an error.
	SigningKey  string `mapstructure:"signing_key"`
	SigningCert string `mapstructure:"signing_cert"`
	// Output is the folder to make; by default dist/<name>-<version>.
	Output string `mapstructure:"output"`
	// Cache is the folder for slow work; by default $HOLDFAST_CACHE, else
	// holdfast in the user's cache folder.
	Cache string `mapstructure:"cache"`

	ctx interpolate.Context
}

// What the keys may look like. A version is a semantic version 2.0 without
// build metadata, because "+" has another meaning in OCI tags and file names.
var (
	nameRE    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
	versionRE = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)
	packageRE = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
)

// decode fills c from what Packer hands over.
func (c *Config) decode(raws []any) error {
	return config.Decode(c, &config.DecodeOpts{
		PluginType:         BuilderID,
		Interpolate:        true,
		InterpolateContext: &c.ctx,
	}, raws...)
}

// bake checks c and turns it into the builder's configuration. The error lists
// every bad key, one line each. It looks at files but makes none.
func (c *Config) bake() (builder.Config, error) {
	var bad *packersdk.MultiError
	report := func(key, format string, args ...any) {
		bad = packersdk.MultiErrorAppend(bad, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	b := builder.Config{
		Name: c.Name, Version: c.Version, Stack: c.Stack, Lock: c.Lock,
		Layouts: c.Layouts, Archive: c.Archive, Mirror: c.Mirror,
		ExtraPackages: c.ExtraPackages, Factory: c.Factory,
		Epoch: c.Epoch, MinFrom: c.MinFrom, UpdateSource: c.UpdateSource, UpdateChannel: c.UpdateChannel,
		GateDeadline: c.GateDeadline, GateWindow: c.GateWindow, TrustRoot: c.TrustRoot,
		SigningKey: c.SigningKey, SigningCert: c.SigningCert,
		Output: c.Output, Cache: c.Cache,
	}

	if !nameRE.MatchString(c.Name) {
		report("name", "%q is not a release name: use 1 to 40 of a-z, 0-9 and -, not starting with -", c.Name)
	}
	if !versionRE.MatchString(c.Version) {
		report("version", "%q is not a semantic version: write it like \"1.0.0\", without a leading v", c.Version)
	}
	c.checkStack(&b, report)
	for i, dir := range c.Layouts {
		if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
			report(fmt.Sprintf("layouts[%d]", i), "%s is not an OCI layout (no file oci-layout in it): name a folder that holds one", dir)
		}
	}
	if c.Archive != "" && !isDir(c.Archive) {
		report("archive", "there is no folder %s: make it with `holdfast-release lock --archive %s`, or leave the key out", c.Archive, c.Archive)
	}
	if c.Mirror != "" {
		if u, err := url.Parse(c.Mirror); err != nil || (u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "file") {
			report("mirror", "%q is not the address of a Debian mirror: it starts with http://, https:// or file://", c.Mirror)
		}
	}
	for i, name := range c.ExtraPackages {
		if !packageRE.MatchString(name) {
			report(fmt.Sprintf("extra_packages[%d]", i), "%q is not the name of a Debian package", name)
		}
	}
	if !slices.Contains([]string{"", builder.Embedded, builder.Seed}, c.Factory) {
		report("factory", "%q is neither %q nor %q", c.Factory, builder.Embedded, builder.Seed)
	}
	if err := b.CheckUpgrade(); err != nil {
		bad = packersdk.MultiErrorAppend(bad, err)
	}
	if c.TrustRoot != "" && !isFile(c.TrustRoot) {
		report("trust_root", "there is no file %s: make it with `holdfast-release keys init`, or leave the key out", c.TrustRoot)
	}
	b.SlotSize = size("slot_size", c.SlotSize, report)
	b.DiskSize = size("disk_size", c.DiskSize, report)
	c.checkSigning(&b, report)
	c.checkOutput(&b, report)
	if bad != nil {
		return builder.Config{}, bad
	}
	return b, nil
}

// checkStack checks that the Compose file and its lock are there; what is in
// them is the bake's to judge.
func (c *Config) checkStack(b *builder.Config, report func(key, format string, args ...any)) {
	switch {
	case c.Stack == "":
		report("stack", "is not set: name the Compose file of the stack to bake")
		return
	case !isFile(c.Stack):
		report("stack", "there is no file %s: name the Compose file of the stack to bake", c.Stack)
		return
	}
	if b.Lock == "" {
		b.Lock = filepath.Join(filepath.Dir(c.Stack), "holdfast.lock")
	}
	if !isFile(b.Lock) {
		report("lock", "there is no file %s: make it with `holdfast-release lock --stack %s --lock %s`", b.Lock, c.Stack, b.Lock)
	}
}

// checkSigning makes a demo pair the default only where no key was named: a
// mistyped path must never end in a release signed by a fresh key.
func (c *Config) checkSigning(b *builder.Config, report func(key, format string, args ...any)) {
	switch {
	case c.SigningKey == "" && c.SigningCert == "":
		dir := filepath.Dir(b.Lock)
		b.SigningKey, b.SigningCert = filepath.Join(dir, "demo-signing.key"), filepath.Join(dir, "demo-signing.crt")
		b.MakeKey = true
	case c.SigningKey == "":
		report("signing_key", "is not set but signing_cert is: name the private key that belongs to %s, or leave out both", c.SigningCert)
	case c.SigningCert == "":
		report("signing_cert", "is not set but signing_key is: name the certificate that belongs to %s, or leave out both", c.SigningKey)
	default:
		if !isFile(c.SigningKey) {
			report("signing_key", "there is no file %s: name an RSA private key in PEM form, or leave out signing_key and signing_cert for a demo pair", c.SigningKey)
		}
		if !isFile(c.SigningCert) {
			report("signing_cert", "there is no file %s: name the certificate of signing_key in PEM form", c.SigningCert)
		}
	}
}

// checkOutput refuses a folder that is not ours, because a bake replaces it
// and Packer may ask for its removal.
func (c *Config) checkOutput(b *builder.Config, report func(key, format string, args ...any)) {
	if b.Output == "" {
		b.Output = filepath.Join("dist", c.Name+"-"+c.Version)
	}
	info, err := os.Stat(b.Output)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		report("output", "%v", err)
	case !info.IsDir():
		report("output", "%s is not a folder: name another one, or remove it", b.Output)
	case !isBake(b.Output):
		report("output", "%s exists and is not an earlier bake (no manifest.json in it): name another folder, or remove it", b.Output)
	}
}

// isBake tells whether dir may be replaced: empty, or made by a bake.
func isBake(dir string) bool {
	if isFile(filepath.Join(dir, "manifest.json")) {
		return true
	}
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) == 0
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
