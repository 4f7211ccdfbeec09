// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"

	"cloud.google.com/go/auth/credentials"
	"google.golang.org/api/googleapi"
)

func TestName(t *testing.T) {
	for release, want := range map[string]string{
		"demo-1.0.0": "demo-1-0-0", "demo-1.0.0-rc.1": "demo-1-0-0-rc-1", "Demo-1.0.0-RC": "demo-1-0-0-rc", "7up-1.0.0": "image-7up-1-0-0",
	} {
		if got := Name(release); got != want {
			t.Errorf("%s is called %s, want %s", release, got, want)
		}
	}
}

// Whatever a release is called, its image's name is allowed, or only too long.
func FuzzName(f *testing.F) {
	f.Add("demo-1.0.0")
	f.Add("-")
	f.Add("ß1")
	f.Fuzz(func(t *testing.T, release string) {
		n := Name(release)
		if len(n) <= 63 && !nameRE.MatchString(n) {
			t.Errorf("%q is called %q", release, n)
		}
	})
}

func TestEndpoint(t *testing.T) {
	for _, c := range []struct{ in, path, want string }{
		{"http://127.0.0.1:4443", "/storage/v1/", "http://127.0.0.1:4443/storage/v1/"},
		{"https://compute.example.com/", "/compute/v1/", "https://compute.example.com/compute/v1/"},
		{"https://x.example.com/compute/beta", "/compute/v1/", "https://x.example.com/compute/beta/"},
	} {
		if got, err := endpoint(c.in, c.path); err != nil || got != c.want {
			t.Errorf("%s is %s, %v; want %s", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{"x", "ftp://x", "http://", "http://x?y", "http://u:p@x", "http://x#y", "\x00"} {
		if _, err := endpoint(bad, "/"); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestTransient(t *testing.T) {
	over := func(err error) error { return &url.Error{Op: "Get", URL: "x", Err: err} }
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&googleapi.Error{Code: 503}, true},
		{&googleapi.Error{Code: 429}, true},
		{&googleapi.Error{Code: 404}, false},
		{&googleapi.Error{Code: 403}, false},
		{&googleapi.Error{Code: 403, Errors: []googleapi.ErrorItem{{Reason: "rateLimitExceeded"}}}, true},
		{over(io.EOF), true},
		{over(&net.OpError{Op: "dial", Err: errors.New("refused")}), true},
		{over(&net.DNSError{IsNotFound: true}), false},
		{over(&net.DNSError{IsTimeout: true}), true},
		{over(x509.UnknownAuthorityError{}), false},
		{errors.New("disk on fire"), false},
	} {
		if got := transient(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

func TestKeySetIsWholeOrAbsent(t *testing.T) {
	if (*KeySet)(nil).state() != nil {
		t.Error("without keys something is sent")
	}
	whole := KeySet{PK: FileContent{[]byte{1}, "X509"}, KEKs: []FileContent{{[]byte{1}, "X509"}}, DBs: []FileContent{{[]byte{1}, "X509"}}}
	if err := whole.check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(k *KeySet){
		"no PK": func(k *KeySet) { k.PK = FileContent{} }, "no KEK": func(k *KeySet) { k.KEKs = nil }, "no db": func(k *KeySet) { k.DBs = nil },
		"type": func(k *KeySet) { k.PK.Type = "PEM" }, "empty dbx": func(k *KeySet) { k.DBXs = []FileContent{{nil, "BIN"}} },
	} {
		k := whole
		spoil(&k)
		u := Upload{Project: "my-project", Bucket: "my-bucket", SecureBoot: &k}
		if err := u.Check(); err == nil || !strings.HasPrefix(err.Error(), "secure_boot: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A credentials file is of a kind that is known, whole, or refused.
func FuzzCredentials(f *testing.F) {
	f.Add([]byte(`{"type":"service_account","client_email":"a@example.com","private_key":"x"}`))
	f.Add([]byte(`{"type":"authorized_user","client_id":"a","client_secret":"b","refresh_token":"c"}`))
	f.Add([]byte(`{"type":"external_account","credential_source":{"executable":{"command":"x"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parse(b, &credentials.DetectOptions{Scopes: []string{scope}})
		if (c == nil) == (err == nil) {
			t.Errorf("%v, %v", c, err)
		}
	})
}
