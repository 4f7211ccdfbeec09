// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot/slottest"
	"github.com/holdfast/holdfast/images/esp"
)

func TestNothingSaid(t *testing.T) {
	b := newBox(t, "QEMU", "Standard PC (Q35 + ICH9, 2009)")
	local, full := b.boot()
	for _, e := range []Effective{local, full} {
		b.want(e, "", "file absent, ovf absent, smbios absent", "")
		if e.Config.String() != Default().String() || e.Origin["network"] != FromDefault || len(e.Origin) != len(Keys()) {
			t.Errorf("%v %v", e.Config, e.Origin)
		}
	}
	if b.waited > 0 || len(b.ran) > 0 || b.out.Len() > 0 {
		t.Errorf("waited %d, ran %v, said %s", b.waited, b.ran, &b.out)
	}
}

func TestFileAndCredential(t *testing.T) {
	b := newBox(t, "QEMU", "x")
	b.file("hostname: from-file\nnetwork: {addresses: [10.0.0.5/24], gateways: [10.0.0.1]}\ntls: {}\n")
	b.smbios("hostname: from-smbios\nnetwork: {dhcp: true}\n")
	local, _ := b.boot()
	b.want(local, "from-smbios", "file applied, ovf absent, smbios applied", "")
	// A top-level key counts as a whole.
	if n := local.Config.Network; !n.DHCP || len(n.Addresses) > 0 {
		t.Errorf("%+v", n)
	}
	if local.Origin["hostname"] != FromSMBIOS || local.Origin["tls"] != FromFile || local.Origin["size"] != FromDefault {
		t.Error(local.Origin)
	}
	// Taken away is taken away, for a file and a credential.
	b.file("")
	os.Remove(filepath.Join(b.root, "run/credentials/@system/holdfast.config"))
	local, full := b.boot()
	b.want(local, "", "file absent, ovf absent, smbios absent", "")
	b.want(full, "", "file absent, ovf absent, smbios absent", "")
}

func TestRefusedThenKept(t *testing.T) {
	b := newBox(t, "QEMU", "x")
	b.file("hostname: box1\nbogus: 1\n")
	_, full := b.boot()
	b.want(full, "", "file refused, ovf absent, smbios absent", "config-refused")
	if c := full.Conditions()[0]; !strings.Contains(c.Text, `\EFI\holdfast\config.yaml:2: bogus: the key is not known`) || !strings.Contains(c.Text, "nothing of it is used") {
		t.Error(c)
	}
	if !strings.Contains(b.out.String(), "config.yaml:2: bogus") {
		t.Error(b.out.String())
	}
	b.file("hostname: box1\n")
	b.boot()
	b.now = day(3)
	b.file("hostname: box1\nsize: XXL\n")
	local, full := b.boot()
	for _, e := range []Effective{local, full} {
		b.want(e, "box1", "file kept/refused, ovf absent, smbios absent", "config-refused")
		if c := e.Conditions()[0]; !strings.Contains(c.Text, "the good one of 2026-01-01 is used") || !strings.Contains(c.Text, ":2: size") {
			t.Error(c)
		}
	}
	b.file("hostname: box2\n")
	local, _ = b.boot()
	b.want(local, "box2", "file applied, ovf absent, smbios absent", "")
}

func TestEC2(t *testing.T) {
	b := newBox(t, "Amazon EC2", "m5.large")
	b.serve(imds("hostname: from-ec2\n", sshLine+"\n"))
	b.file("hostname: from-file\nsize: S\n")
	local, full := b.boot()
	b.want(local, "from-file", "ec2-key waiting, file applied, ec2 waiting, smbios absent", "")
	b.want(full, "from-ec2", "ec2-key applied, file applied, ec2 applied, smbios absent", "")
	if k := full.Config.Admin.SSHKeys; len(k) != 1 || k[0] != sshLine || full.Origin["admin"] != FromEC2Key || full.Config.Size != "S" {
		t.Errorf("%v %v", k, full.Origin)
	}
	if full.Instance.ID != "i-0123456789abcdef0" || full.Instance.Region != "eu-central-1" || b.waited != 1 {
		t.Errorf("%+v, waited %d times", full.Instance, b.waited)
	}
	// A document that says who may log in leaves the key pair out.
	b.serve(imds("admin: {ssh_keys: []}\n", sshLine))
	_, full = b.boot()
	if len(full.Config.Admin.SSHKeys) > 0 || full.Origin["admin"] != FromEC2 {
		t.Error(full.Config.Admin, full.Origin)
	}
	// Later boots know it before the network is up, and without the service.
	b.serve(nil)
	b.now = day(1)
	b.network = errors.New("no address within 2 minutes")
	local, full = b.boot()
	b.want(local, "from-file", "ec2-key kept/waiting, file applied, ec2 kept/waiting, smbios absent", "")
	b.want(full, "from-file", "ec2-key kept/unreachable, file applied, ec2 kept/unreachable, smbios absent", "config-kept")
	if c := full.Conditions()[0]; !strings.Contains(c.Text, "no address within 2 minutes") || full.Origin["admin"] != FromEC2 {
		t.Error(c, full.Origin)
	}
	// User-data that was removed is forgotten.
	b.serve(imds("", ""))
	b.network = nil
	b.boot()
	local, _ = b.boot()
	b.want(local, "from-file", "ec2-key waiting, file applied, ec2 waiting, smbios absent", "")
}

// A box that is offered version 1 only takes nothing from it.
func TestEC2VersionOne(t *testing.T) {
	b := newBox(t, "Amazon EC2", "m5.large")
	asked := 0
	b.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			http.Error(w, "", http.StatusMethodNotAllowed)
			return
		}
		asked++
		fmt.Fprint(w, "hostname: evil\n")
	}))
	_, full := b.boot()
	b.want(full, "", "ec2-key unreachable, file absent, ec2 unreachable, smbios absent", "config-unreachable")
	if asked > 0 || len(full.Config.Admin.SSHKeys) > 0 {
		t.Errorf("version 1 was asked %d times", asked)
	}
}

// A copy of the disk in another machine must not take the first one's address.
func TestCopiedDisk(t *testing.T) {
	b := newBox(t, "Amazon EC2", "m5.large")
	b.serve(imds("hostname: first\nnetwork: {addresses: [10.0.0.5/24]}\n", sshLine))
	b.boot()
	b.machine("99999999-2222-3333-4444-555555555555")
	b.serve(nil)
	local, full := b.boot()
	b.want(local, "", "ec2-key waiting, file absent, ec2 waiting, smbios absent", "")
	b.want(full, "", "ec2-key unreachable, file absent, ec2 unreachable, smbios absent", "config-unreachable")
	if !full.Config.Network.DHCP {
		t.Error(full.Config.Network)
	}
}

func TestGCE(t *testing.T) {
	b := newBox(t, "Google", "Google Compute Engine")
	b.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		switch strings.TrimPrefix(r.URL.Path, "/computeMetadata/v1/instance/") {
		case "attributes/user-data":
			fmt.Fprint(w, "#!/bin/sh\nhostname x\n")
		case "name":
			fmt.Fprint(w, "box1")
		default:
			http.NotFound(w, r)
		}
	}))
	_, full := b.boot()
	b.want(full, "", "file absent, gce refused, smbios absent", "config-refused")
	if c := full.Conditions()[0]; !strings.Contains(c.Text, "GCE metadata user-data:1: this is a script") || full.Instance.Name != "box1" {
		t.Error(c, full.Instance)
	}
}

func TestBrokenPlaces(t *testing.T) {
	b := newBox(t, "QEMU", "x")
	if err := os.WriteFile(filepath.Join(b.root, "dev/vda1"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	_, full := b.boot()
	b.want(full, "", "file unreachable, ovf absent, smbios absent", "config-unreachable")
	b.files(esp.File{Path: "EFI/holdfast/config.yaml.txt", Data: []byte("hostname: x")})
	_, full = b.boot()
	b.want(full, "", "file absent, ovf absent, smbios absent", "")
	if !strings.Contains(full.Sources[0].Text, "rename it") {
		t.Error(full.Sources[0])
	}
	b.file(strings.Repeat("# filler\n", 10000))
	_, full = b.boot()
	b.want(full, "", "file refused, ovf absent, smbios absent", "config-refused")

	// A damaged kept file costs only what it held.
	b.file("hostname: box1\n")
	b.boot()
	slottest.Put(t, b.root, keptDir+"/file.json", "{")
	b.file("bogus: 1\n")
	_, full = b.boot()
	b.want(full, "", "file refused, ovf absent, smbios absent", "config-refused")
	if !strings.Contains(full.Sources[0].Text, "is damaged") {
		t.Error(full.Sources[0])
	}

	// Where nothing can be written the box still comes up.
	if err := os.RemoveAll(filepath.Join(b.root, "var")); err != nil {
		t.Fatal(err)
	}
	slottest.Put(t, b.root, "var", "no folder")
	b.file("hostname: box1\n")
	if e := Full(t.Context(), b.env()); e.Config.Hostname != "box1" || e.Failed == nil {
		t.Errorf("%v %v", e.Config.Hostname, e.Failed)
	}
}

func TestKeptFiles(t *testing.T) {
	b := newBox(t, "QEMU", "x")
	b.file("hostname: box1\n")
	b.boot()
	name := filepath.Join(b.root, keptDir, "file.json")
	before, err := os.Stat(name)
	if err != nil || before.Mode().Perm() != 0o600 {
		t.Fatal(before, err)
	}
	if dir, err := os.Stat(filepath.Dir(name)); err != nil || dir.Mode().Perm() != 0o700 {
		t.Error(dir.Mode(), err)
	}
	b.now = day(1)
	b.boot()
	if after, err := os.Stat(name); err != nil || !os.SameFile(before, after) {
		t.Error("an unchanged document was written again")
	}
	// Without the kept folder's file system nothing is lost but that.
	for _, bad := range []string{"", "{}", `{"format":2}`, strings.Repeat("x", maxKept+1)} {
		slottest.Put(t, b.root, keptDir+"/file.json", bad)
		b.boot()
		if r, err := loadKept(b.env(), "file"); err != nil || string(r.Data) != "hostname: box1\n" {
			t.Errorf("%.20q: %v %v", bad, r, err)
		}
	}
}

func TestConditionOfCertificate(t *testing.T) {
	certificate, key := pair(t, day(-10), day(10))
	b := newBox(t, "QEMU", "x")
	b.file(string(tlsDocument(certificate, key)))
	b.now = day(11)
	_, full := b.boot()
	b.want(full, "", "file applied, ovf absent, smbios absent", "tls-certificate-expired")
	secret := strings.Split(key, "\n")[1]
	if strings.Contains(b.out.String(), secret) || strings.Contains(fmt.Sprintf("%v %+v", full, full.Redacted()), secret) {
		t.Error("the key is shown")
	}
	saved, err := Load(b.root)
	if err != nil || string(saved.Config.TLS.Key) != key {
		t.Errorf("the key was not handed on: %v", err)
	}
}
