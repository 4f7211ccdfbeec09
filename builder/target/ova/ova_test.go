// SPDX-License-Identifier: Apache-2.0

package ova

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/images/ova"
	"github.com/holdfast/holdfast/images/sign"
	"github.com/holdfast/holdfast/images/vmdk"
)

const gib = int64(1) << 30

// output makes dir an output folder with a disk of size bytes, random data in
// its middle.
func output(t testing.TB, dir string, size int64) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, target.DiskName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, mib)
	rand.NewChaCha8([32]byte{3}).Read(data)
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data, size/2); err != nil {
		t.Fatal(err)
	}
	m := builder.Manifest{Format: 1, Name: "demo", Version: "1.0.0", RootHash: strings.Repeat("ab", 32),
		Files: []builder.ManifestFile{{Name: target.DiskName, Bytes: size, SHA256: strings.Repeat("cd", 32)}}}
	b, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, builder.ManifestName), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lines keeps what was said.
type lines struct {
	mu   sync.Mutex
	said []string
}

func (l *lines) Say(format string, args ...any)  { l.add(fmt.Sprintf(format, args...)) }
func (l *lines) Warn(format string, args ...any) { l.add("WARNING: " + fmt.Sprintf(format, args...)) }

func (l *lines) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, s)
}

func open(t testing.TB, path string) *ova.Archive {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	a, err := ova.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

// envelope is what the tests look at in the OVF.
type envelope struct {
	Files []struct {
		Href string `xml:"href,attr"`
		Size int64  `xml:"size,attr"`
	} `xml:"References>File"`
	Disk struct {
		Capacity  int64 `xml:"capacity,attr"`
		Populated int64 `xml:"populatedSize,attr"`
	} `xml:"DiskSection>Disk"`
	System struct {
		Name    string `xml:"Name"`
		Product struct {
			Product, Vendor, Version string
			Property                 []struct {
				Key   string `xml:"key,attr"`
				Value string `xml:"value,attr"`
			}
		} `xml:"ProductSection"`
		License  string `xml:"EulaSection>License"`
		Hardware struct {
			Type  string `xml:"System>VirtualSystemType"`
			Items []struct {
				ResourceType    int
				VirtualQuantity int
				Connection      string
			} `xml:"Item"`
			Config []struct {
				Key   string `xml:"key,attr"`
				Value string `xml:"value,attr"`
			}
		} `xml:"VirtualHardwareSection"`
	} `xml:"VirtualSystem"`
}

func (e envelope) quantity(kind int) int {
	for _, i := range e.System.Hardware.Items {
		if i.ResourceType == kind {
			return i.VirtualQuantity
		}
	}
	return 0
}

func readEnvelope(t testing.TB, a *ova.Archive) (e envelope) {
	t.Helper()
	b, err := a.Envelope()
	if err == nil {
		err = xml.Unmarshal(b, &e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestMakeDefaults(t *testing.T) {
	dir := t.TempDir()
	output(t, dir, 8*mib)
	r, err := Make(t.Context(), dir, Options{}, &lines{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Path != filepath.Join(dir, "demo-1.0.0.ova") || r.Unchanged || r.Record.Target != "ova" || r.Record.DiskBytes != 20*gib {
		t.Errorf("%+v", r)
	}
	a := open(t, r.Path)
	e := readEnvelope(t, a)
	if e.System.Name != "demo-1.0.0" || e.System.Product.Product != "demo" || e.System.Product.Version != "1.0.0" || e.System.Hardware.Type != "vmx-17" {
		t.Errorf("%+v", e)
	}
	if e.quantity(3) != 2 || e.quantity(4) != 4096 || e.Disk.Capacity != 20*gib || e.Disk.Populated != mib {
		t.Errorf("%d cpus, %d MiB, disk %+v", e.quantity(3), e.quantity(4), e.Disk)
	}
	section, err := a.Disk()
	if err != nil {
		t.Fatal(err)
	}
	if f := e.Files[0]; f.Href != "demo-1.0.0-disk1.vmdk" || f.Size != section.Size() {
		t.Errorf("file %+v, its member has %d bytes", f, section.Size())
	}
	disk, err := vmdk.Open(section, section.Size())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, target.DiskName))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(raw)+int(mib))
	if _, err := disk.ReadAt(got, 0); err != nil || !bytes.Equal(got[:len(raw)], raw) || !bytes.Equal(got[len(raw):], make([]byte, mib)) {
		t.Errorf("the disk differs, %v", err)
	}

	// Made again it is the same file; made elsewhere it has the same bytes.
	if again, err := Make(t.Context(), dir, Options{}, &lines{}); err != nil || !again.Unchanged || again.Record != r.Record {
		t.Errorf("again: %+v, %v", again, err)
	}
	other := t.TempDir()
	output(t, other, 8*mib)
	if same, err := Make(t.Context(), other, Options{}, &lines{}); err != nil || same.Record.SHA256 != r.Record.SHA256 {
		t.Errorf("elsewhere: %+v, %v", same, err)
	}
}

func TestMakeAll(t *testing.T) {
	dir, keys := t.TempDir(), t.TempDir()
	output(t, dir, 8*mib)
	key, cert, text := filepath.Join(keys, "key.pem"), filepath.Join(keys, "cert.pem"), filepath.Join(keys, "eula.txt")
	if err := sign.MakePair(key, cert, "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(text, []byte("Be kind.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	said := &lines{}
	r, err := Make(t.Context(), dir, Options{
		File: "box.ova", Name: "A box", Product: "Box", Version: "2", Vendor: "Example", Description: "About it", EULAFile: text,
		Size: "S", CPUs: 3, MemoryMiB: 6144, DiskSize: 30 * gib, VMXVersion: "19", GuestOS: "debian12_64Guest",
		Networks: []string{"LAN", "Storage"}, SecureBoot: true, Properties: map[string]string{"ntp": "time.example.com"},
		SigningKey: key, SigningCert: cert,
	}, said)
	if err != nil {
		t.Fatal(err)
	}
	a := open(t, r.Path)
	e := readEnvelope(t, a)
	if a.Certificate == nil || a.Certificate.Subject.CommonName != "test" {
		t.Errorf("certificate %+v", a.Certificate)
	}
	var networks []string
	for _, i := range e.System.Hardware.Items {
		if i.ResourceType == 10 {
			networks = append(networks, i.Connection)
		}
	}
	got := fmt.Sprint(e.System.Name, e.System.Product.Product, e.System.Product.Vendor, e.System.Product.Version, e.System.License,
		e.quantity(3), e.quantity(4), e.Disk.Capacity/gib, e.System.Hardware.Type, networks, e.System.Hardware.Config)
	if want := "A boxBoxExample2Be kind.\n3 6144 30vmx-19[LAN Storage] [{firmware efi} {bootOptions.efiSecureBootEnabled true}]"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, p := range e.System.Product.Property {
		if p.Key == "ntp" && p.Value != "time.example.com" {
			t.Errorf("%+v", p)
		}
	}
	if all := strings.Join(said.said, "\n"); !strings.Contains(all, "WARNING: secure_boot: hypervisors trust") {
		t.Errorf("no warning about keys in %q", all)
	}
}

// Each bad input has one error that says what to do, and leaves the folder as it
// was.
func TestMakeRefuses(t *testing.T) {
	for _, c := range []struct {
		name, want string
		o          Options
		spoil      func(dir string) error
	}{
		{"size", "size: size \"XXL\" is not known: use one of XS", Options{Size: "XXL"}, nil},
		{"disk size", "disk_size: 0 GiB is less than the baked disk needs", Options{DiskSize: mib}, nil},
		{"large disk", "disk_size: ", Options{DiskSize: 63 << 40}, nil},
		{"cpus", "cpus: 1000 is out of range", Options{CPUs: 1000}, nil},
		{"memory", "memory: 5 MiB will not do", Options{MemoryMiB: 5}, nil},
		{"file", "file: \"x.tar\" is not the name of an OVA", Options{File: "x.tar"}, nil},
		{"folder in file", "file: ", Options{File: "../x.ova"}, nil},
		{"name", "name: ", Options{Name: "a/b"}, nil},
		{"hardware", "vmx_version: \"vmx-9\" is not", Options{VMXVersion: "9"}, nil},
		{"guest", "guest_os: ", Options{GuestOS: "Debian"}, nil},
		{"network", "networks: ", Options{Networks: []string{"a", "a"}}, nil},
		{"property", "properties: \"host\" is not known: use one of hostname", Options{Properties: map[string]string{"host": "x"}}, nil},
		{"eula", "eula_file: there is no file none", Options{EULAFile: "none"}, nil},
		{"key alone", "signing_cert: is not set", Options{SigningKey: "k"}, nil},
		{"cert alone", "signing_key: is not set", Options{SigningCert: "c"}, nil},
		{"keys", "signing_key, signing_cert: ", Options{SigningKey: "none", SigningCert: "none"}, nil},
		{"no disk", "has no disk.raw any more: bake again", Options{}, func(dir string) error { return os.Remove(filepath.Join(dir, target.DiskName)) }},
		{"cut off", "its manifest says", Options{}, func(dir string) error { return os.Truncate(filepath.Join(dir, target.DiskName), mib+1) }},
		{"no bake", "no bake made it", Options{}, func(dir string) error { return os.Remove(filepath.Join(dir, builder.ManifestName)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			output(t, dir, 8*mib)
			if c.spoil != nil {
				if err := c.spoil(dir); err != nil {
					t.Fatal(err)
				}
			}
			before := list(t, dir)
			_, err := Make(t.Context(), dir, c.o, &lines{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if after := list(t, dir); after != before {
				t.Errorf("the folder holds %s, held %s", after, before)
			}
		})
	}
}

func list(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// A disk that is too large, or a cancelled context, leaves the OVA of before.
func TestMakeKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	output(t, dir, 8*mib)
	r, err := Make(t.Context(), dir, Options{}, &lines{})
	if err != nil {
		t.Fatal(err)
	}
	before := list(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Make(ctx, dir, Options{CPUs: 4}, &lines{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if after := list(t, dir); after != before {
		t.Errorf("the folder holds %s, held %s", after, before)
	}
	if e := readEnvelope(t, open(t, r.Path)); e.quantity(3) != 2 {
		t.Error("the OVA of before was changed")
	}
}

func TestCheck(t *testing.T) {
	if err := (Options{}).Check(); err != nil {
		t.Error(err)
	}
	if err := (Options{Size: "none"}).Check(); err == nil || !strings.HasPrefix(err.Error(), "size: ") {
		t.Error(err)
	}
}
