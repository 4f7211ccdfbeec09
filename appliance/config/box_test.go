// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/slot/slottest"
	"github.com/holdfast/holdfast/images/esp"
)

// box is a machine of a kind, as a folder.
type box struct {
	t    testing.TB
	root string
	// guestinfo answers vmware-rpctool; iso is the disc in the drive, nil for
	// none.
	guestinfo map[string]string
	iso       map[string]string
	ran       []string
	// service is the metadata service, see serve.
	service atomic.Pointer[http.Handler]
	url     string
	out     bytes.Buffer
	now     time.Time
	network error
	waited  int
}

func newBox(t testing.TB, vendor, product string) *box {
	t.Helper()
	b := &box{t: t, root: slottest.Box(t, "root-a", "esp", "root-a"), now: noon}
	b.machine("11111111-2222-3333-4444-555555555555")
	slottest.Put(t, b.root, "sys/class/dmi/id/sys_vendor", vendor+"\n")
	slottest.Put(t, b.root, "sys/class/dmi/id/product_name", product+"\n")
	b.file("")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		service := b.service.Load()
		if service == nil {
			panic(http.ErrAbortHandler)
		}
		(*service).ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	b.url = srv.URL
	return b
}

// serve changes the metadata service; with nil none answers.
func (b *box) serve(h http.Handler) {
	if h == nil {
		b.service.Store(nil)
		return
	}
	b.service.Store(&h)
}

func (b *box) machine(uuid string) {
	slottest.Put(b.t, b.root, "sys/class/dmi/id/product_uuid", uuid+"\n")
}

// file puts a file on the EFI system partition, none where text is "".
func (b *box) file(text string) {
	var files []esp.File
	if text != "" {
		files = append(files, esp.File{Path: "EFI/Holdfast/CONFIG.YAML", Data: []byte(text)})
	}
	b.files(files...)
}

func (b *box) files(files ...esp.File) {
	b.t.Helper()
	f, err := os.Create(filepath.Join(b.root, "dev/vda1"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(34<<20), esp.Write(f, 34<<20, files, 1, noon)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) smbios(text string) {
	slottest.Put(b.t, b.root, "run/credentials/@system/holdfast.config", text)
}

func (b *box) drive(disc map[string]string) {
	slottest.Put(b.t, b.root, "dev/sr0", "")
	b.iso = disc
}

// Run plays vmware-rpctool, mount and umount.
func (b *box) Run(_ context.Context, argv ...string) ([]byte, error) {
	b.ran = append(b.ran, strings.Join(argv, " "))
	place := filepath.Join(b.root, isoPlace)
	switch argv[0] {
	case "vmware-rpctool":
		v, ok := b.guestinfo[strings.TrimPrefix(argv[1], "info-get ")]
		if !ok {
			return nil, errors.New("vmware-rpctool: No value found")
		}
		return []byte(v + "\n"), nil
	case "mount":
		if b.iso == nil {
			return nil, errors.New("mount: /dev/sr0: no medium found on /dev/sr0.")
		}
		for name, text := range b.iso {
			slottest.Put(b.t, place, name, text)
		}
		return nil, nil
	case "umount":
		for name := range b.iso {
			os.Remove(filepath.Join(place, name))
		}
		return nil, nil
	}
	return nil, fmt.Errorf("%s: not found", argv[0])
}

func (b *box) env() Env {
	return Env{
		Root: b.root, Run: b, EC2: b.url, GCE: b.url, Out: &b.out,
		Now:         func() time.Time { return b.now },
		Pause:       func(ctx context.Context, _ time.Duration) error { return context.Cause(ctx) },
		WaitNetwork: func(context.Context) error { b.waited++; return b.network },
	}
}

// boot runs both steps of a boot and gives what each says.
func (b *box) boot() (local, full Effective) {
	b.t.Helper()
	local = Local(b.t.Context(), b.env())
	b.saved(local)
	full = Full(b.t.Context(), b.env())
	b.saved(full)
	return local, full
}

func (b *box) saved(e Effective) {
	b.t.Helper()
	got, err := Load(b.root)
	if err != nil || e.Failed != nil || got.Config.String() != e.Config.String() || len(got.Sources) != len(e.Sources) || got.Platform != e.Platform {
		b.t.Errorf("saved %+v, %v, %v", got, err, e.Failed)
	}
	if i, err := os.Stat(filepath.Join(b.root, Path)); err != nil || i.Mode().Perm() != 0o600 {
		b.t.Errorf("%v %v", i, err)
	}
}

func states(e Effective) string {
	var out []string
	for _, s := range e.Sources {
		text := fmt.Sprintf("%s %s", s.Source, s.State)
		if s.Why != "" {
			text += "/" + s.Why
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func codes(e Effective) string {
	var out []string
	for _, c := range e.Conditions() {
		if c.Text == "" || c.Remedy == "" {
			panic(fmt.Sprintf("%+v", c))
		}
		out = append(out, c.Code)
	}
	return strings.Join(out, " ")
}

func (b *box) want(e Effective, hostname, states_, codes_ string) {
	b.t.Helper()
	if e.Config.Hostname != hostname || states(e) != states_ || codes(e) != codes_ {
		b.t.Errorf("hostname %q\n%s\nconditions %q %v\nwant %q\n%s\nconditions %q", e.Config.Hostname, states(e), codes(e), e.Conditions(), hostname, states_, codes_)
	}
}

// imds answers like EC2, version 2.
func imds(userData, key string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := map[string]string{"/latest/user-data": userData, "/latest/meta-data/public-keys/0/openssh-key": key,
			"/latest/meta-data/instance-id": "i-0123456789abcdef0", "/latest/meta-data/placement/region": "eu-central-1"}[r.URL.Path]
		switch {
		case r.Method == http.MethodPut:
			fmt.Fprint(w, "token")
		case r.Header.Get("X-aws-ec2-metadata-token") != "token":
			http.Error(w, "", http.StatusUnauthorized)
		case answer == "":
			http.NotFound(w, r)
		default:
			fmt.Fprint(w, answer)
		}
	})
}
