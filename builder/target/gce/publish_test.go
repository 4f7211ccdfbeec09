// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/api/compute/v1"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/images/gcetar"
)

// lines keeps what was shown.
type lines struct {
	mu    sync.Mutex
	all   []string
	warns []string
}

func (l *lines) Say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprintf(format, args...))
}

func (l *lines) Warn(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.warns = append(l.warns, fmt.Sprintf(format, args...))
}

// output is the output folder of a bake whose disk holds data bytes of noise.
func output(t testing.TB, data int64) string {
	t.Helper()
	const size = 8 << 20
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, data)
	rand.NewChaCha8([32]byte{9}).Read(b)
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 1<<20); err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, size)
	copy(whole[1<<20:], b)
	m := builder.Manifest{Format: 1, Name: "demo", Version: "1.0.0", RootHash: strings.Repeat("ab", 32),
		Files: []builder.ManifestFile{{Name: "disk.raw", Bytes: size, SHA256: fmt.Sprintf("%x", sha256.Sum256(whole))}}}
	text, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, builder.ManifestName), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// short limits make faults pass in milliseconds.
func short() *limits {
	return &limits{
		attempt: 2 * time.Second, retry: 20 * time.Second, pause: time.Millisecond, answer: time.Second,
		chunk: 256 << 10, piece: 2 * time.Second, poll: time.Millisecond, cleanup: 10 * time.Second,
	}
}

func (c *cloud) upload() *Upload {
	return &Upload{
		Project: "my-project", Bucket: "my-bucket", Credentials: Credentials{Token: "secret"},
		StorageEndpoint: c.url, ComputeEndpoint: c.url + "/compute/v1/", limits: short(),
	}
}

const imageName = "demo-1-0-0"

func TestPublish(t *testing.T) {
	c, l := newCloud(t), &lines{}
	u := c.upload()
	u.Family, u.Labels, u.StorageLocations, u.Licenses = "demo", map[string]string{"team": "a"}, []string{"eu"}, []string{"projects/p/global/licenses/l"}
	u.Features = []string{"SEV_CAPABLE", "GVNIC"}
	u.KMSKey, u.KMSServiceAccount = "projects/p/locations/eu/keyRings/r/cryptoKeys/k", "a@example.com"
	u.SecureBoot = &KeySet{PK: FileContent{[]byte{1, 2}, "X509"}, KEKs: []FileContent{{[]byte{3}, "X509"}}, DBs: []FileContent{{[]byte{4}, "X509"}}, DBXs: []FileContent{{[]byte{5}, "BIN"}}}
	u.Members, u.Public = []string{"user:jo@example.com"}, true
	u.KeepObject = true
	dir := output(t, 1<<20)
	r, err := Run(t.Context(), Config{Dir: dir, DiskSize: 3 << 30, Upload: u}, l)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"architecture":"X86_64","description":"demo-1.0.0","family":"demo",` +
		`"guestOsFeatures":[{"type":"UEFI_COMPATIBLE"},{"type":"GVNIC"},{"type":"VIRTIO_SCSI_MULTIQUEUE"},{"type":"SEV_CAPABLE"}],` +
		`"imageEncryptionKey":{"kmsKeyName":"projects/p/locations/eu/keyRings/r/cryptoKeys/k","kmsKeyServiceAccount":"a@example.com"},` +
		`"labels":{"team":"a"},"licenses":["projects/p/global/licenses/l"],"name":"demo-1-0-0",` +
		`"rawDisk":{"containerType":"TAR","source":"https://storage.googleapis.com/my-bucket/` + r.Image.Object + `"},` +
		`"shieldedInstanceInitialState":{"dbs":[{"content":"BA==","fileType":"X509"}],"dbxs":[{"content":"BQ==","fileType":"BIN"}],"keks":[{"content":"Aw==","fileType":"X509"}],"pk":{"content":"AQI=","fileType":"X509"}},` +
		`"sourceType":"RAW","storageLocations":["eu"]}`
	if got, _ := json.Marshal(c.inserted[0]); string(got) != want {
		t.Errorf("insert of\n%s, want\n%s", got, want)
	}
	archive, err := os.ReadFile(r.Path)
	if err != nil || string(c.content(r.Image.Object)) != string(archive) {
		t.Errorf("what arrived is not the archive, %v", err)
	}
	if n := c.sent("chunk"); n < 4 {
		t.Errorf("%d chunks, want the archive in pieces", n)
	}
	policy, _ := json.Marshal(c.policies[imageName].Bindings)
	if string(policy) != `[{"members":["user:old@example.com"],"role":"roles/viewer"},{"members":["user:jo@example.com","allAuthenticatedUsers"],"role":"roles/compute.imageUser"}]` {
		t.Errorf("shared with %s", policy)
	}
	if r.Image.Name != imageName || r.Image.SelfLink == "" || !slices.Equal(r.Image.Locations, []string{"eu"}) || r.Unchanged || r.Record.DiskBytes != 3<<30 {
		t.Errorf("result %+v %+v", r, r.Image)
	}
	f, err := os.Open(r.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if i, err := gcetar.Open(f); err != nil || i.Size != 3<<30 {
		t.Errorf("archive: %+v, %v", i, err)
	}
}

// Without a word about it nothing is shared, no key is sent, and the archive
// goes.
func TestPublishPlain(t *testing.T) {
	c, l := newCloud(t), &lines{}
	r, err := Run(t.Context(), Config{Dir: output(t, 100<<10), Upload: c.upload()}, l)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"shieldedInstanceInitialState", "imageEncryptionKey", "labels", "family", "licenses", "storageLocations"} {
		if _, ok := c.inserted[0][key]; ok {
			t.Errorf("%s is sent", key)
		}
	}
	if c.left() != imageName || r.Image.Object != "" || c.sent("compute.images.setIamPolicy") != 0 || len(l.warns) > 0 {
		t.Errorf("left %q, calls %v, warnings %q", c.left(), c.calls, l.warns)
	}
	if r.Record.DiskBytes != 20<<30 {
		t.Errorf("a disk of %d bytes, the profile says 20 GiB", r.Record.DiskBytes)
	}
}

func TestFileOnly(t *testing.T) {
	dir := output(t, 100<<10)
	for n, unchanged := range []bool{false, true} {
		r, err := Run(t.Context(), Config{Dir: dir, File: "x.tar.gz", Size: "L"}, &lines{})
		if err != nil || r.Unchanged != unchanged || r.Image != nil || r.Record.DiskBytes != 100<<30 || filepath.Base(r.Path) != "x.tar.gz" {
			t.Errorf("run %d: %+v, %v", n, r, err)
		}
	}
	for _, c := range []Config{{Dir: t.TempDir()}, {Dir: dir, DiskSize: 65 << 40}, {Dir: dir, Size: "XXL"}, {Dir: dir, File: "a/b.tar.gz"}} {
		if _, err := Run(t.Context(), c, &lines{}); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func check(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
}

func TestOperationError(t *testing.T) {
	c := newCloud(t)
	c.opError = &compute.OperationError{Errors: []*compute.OperationErrorErrors{{Code: "BACKEND_ERROR", Message: "The archive can't be read."}}}
	_, err := Run(t.Context(), Config{Dir: output(t, 1<<20), Upload: c.upload()}, &lines{})
	check(t, err, "make the image demo-1-0-0: Google says: The archive can't be read (BACKEND_ERROR)", "nothing is left")
	if c.left() != "" {
		t.Errorf("left %q", c.left())
	}
}

func TestImageFails(t *testing.T) {
	c := newCloud(t)
	c.looks = 1000000
	u := c.upload()
	u.StateTimeout = 200 * time.Millisecond
	_, err := Run(t.Context(), Config{Dir: output(t, 1<<20), Upload: u}, &lines{})
	check(t, err, "the image was not ready after state_timeout, 200ms", "nothing is left")
	if c.left() != "" {
		t.Errorf("left %q", c.left())
	}
}

// Names that are taken, things that are missing: known before the upload.
func TestLooksFirst(t *testing.T) {
	for name, k := range map[string]struct {
		spoil func(c *cloud, u *Upload)
		want  string
	}{
		"name taken":     {func(c *cloud, _ *Upload) { c.images[imageName] = &compute.Image{Name: imageName} }, "has an image demo-1-0-0 already: set image_name to another name, or overwrite = true"},
		"no project":     {func(_ *cloud, u *Upload) { u.Project = "other-project" }, "there is no project other-project that this account may see: correct project_id"},
		"no bucket":      {func(_ *cloud, u *Upload) { u.Bucket = "other-bucket" }, "there is no bucket other-bucket: correct bucket, or make it with `gcloud storage buckets create gs://other-bucket --project=my-project`"},
		"object taken":   {func(c *cloud, u *Upload) { u.Object = "x"; c.objects["x"] = &stored{name: "x", data: []byte("theirs")} }, "gs://my-bucket/x exists and is not this archive: set gcs_object_name"},
		"bad token":      {func(_ *cloud, u *Upload) { u.Credentials.Token = "old" }, "the Google credentials do not serve: Invalid Credentials"},
		"no key file":    {func(_ *cloud, u *Upload) { u.Credentials = Credentials{File: "/nowhere/key.json"} }, "credentials do not serve: open /nowhere/key.json: no such file"},
		"not a key file": {func(_ *cloud, u *Upload) { u.Credentials = Credentials{JSON: `{"type":"pirate"}`} }, "not a credentials file of Google's"},
		"nobody there":   {func(c *cloud, u *Upload) { c.server.Close(); u.limits.retry = 50 * time.Millisecond }, "connection refused"},
		"bad image name": {func(_ *cloud, u *Upload) { u.ImageName = "Demo" }, `image_name: "Demo" is not allowed`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			u := c.upload()
			k.spoil(c, u)
			before := c.left()
			_, err := Run(t.Context(), Config{Dir: output(t, 100<<10), Upload: u}, &lines{})
			check(t, err, k.want)
			if c.left() != before || c.sent("chunk")+c.sent("whole")+c.sent("compute.images.insert") > 0 {
				t.Errorf("left %q, calls %v", c.left(), c.calls)
			}
		})
	}
}

func TestNoCredentials(t *testing.T) {
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
	u := newCloud(t).upload()
	u.Credentials = Credentials{}
	_, err := Run(t.Context(), Config{Dir: output(t, 100<<10), Upload: u}, &lines{})
	check(t, err, "/nowhere/key.json", "gcloud auth application-default login")
	if err := noCredentials(errors.New("credentials: could not find default credentials. See x")); !strings.Contains(err.Error(), "there are no Google credentials: run `gcloud") {
		t.Error(err)
	}
}

func TestOverwrite(t *testing.T) {
	c := newCloud(t)
	c.images[imageName] = &compute.Image{Name: imageName, Description: "old", Status: "READY"}
	u := c.upload()
	u.Overwrite = true
	if _, err := Run(t.Context(), Config{Dir: output(t, 1<<20), Upload: u}, &lines{}); err != nil {
		t.Fatal(err)
	}
	if c.left() != imageName || c.images[imageName].Description == "old" {
		t.Errorf("left %q", c.left())
	}
	if i, j := slices.Index(c.calls, "compute.images.delete"), slices.Index(c.calls, "chunk"); i < j {
		t.Errorf("the old image is deleted before the upload: %v", c.calls)
	}
	// An upload that fails leaves the old image.
	c.faults["begin"] = slices.Repeat([]fault{{status: 403, message: "no"}}, 9)
	if _, err := Run(t.Context(), Config{Dir: output(t, 2<<20), Upload: u}, &lines{}); err == nil || c.left() != imageName {
		t.Errorf("left %q, %v", c.left(), err)
	}
	c.faults["compute.images.insert"], c.faults["begin"] = slices.Repeat([]fault{{status: 403, message: "no"}}, 9), nil
	_, err := Run(t.Context(), Config{Dir: output(t, 2<<20), Upload: u}, &lines{})
	check(t, err, "the image that it replaces is deleted already", "nothing is left")
}

// What a killed run left in the bucket is used, not sent again.
func TestTakesUpObject(t *testing.T) {
	c, dir, l := newCloud(t), output(t, 1<<20), &lines{}
	u := c.upload()
	u.KeepObject = true
	if _, err := Run(t.Context(), Config{Dir: dir, Upload: u}, l); err != nil {
		t.Fatal(err)
	}
	delete(c.images, imageName)
	n := c.sent("chunk")
	u.KeepObject = false
	r, err := Run(t.Context(), Config{Dir: dir, Upload: u}, l)
	if err != nil || !r.Unchanged {
		t.Fatalf("%+v, %v", r, err)
	}
	if c.sent("chunk") != n || c.left() != imageName {
		t.Errorf("%d chunks, before %d; left %q", c.sent("chunk"), n, c.left())
	}
}

func TestObjectStays(t *testing.T) {
	c, l := newCloud(t), &lines{}
	c.faults["storage.objects.delete"] = slices.Repeat([]fault{{status: 403, reason: "forbidden", message: "no delete"}}, 9)
	r, err := Run(t.Context(), Config{Dir: output(t, 100<<10), Upload: c.upload()}, l)
	if err != nil || r.Image.Object == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	if len(l.warns) != 1 || !strings.Contains(l.warns[0], "gcloud storage rm gs://my-bucket/") {
		t.Errorf("warnings %q", l.warns)
	}
}

func TestDamagedOnTheWay(t *testing.T) {
	c := newCloud(t)
	c.corrupt = true
	_, err := Run(t.Context(), Config{Dir: output(t, 1<<20), Upload: c.upload()}, &lines{})
	check(t, err, "arrived", "were sent: try again", "nothing is left")
	if c.left() != "" {
		t.Errorf("left %q", c.left())
	}
}

func TestDamagedArchive(t *testing.T) {
	c := newCloud(t)
	dir := output(t, 100<<10)
	r, err := Run(t.Context(), Config{Dir: dir}, &lines{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.Path, []byte("no archive"), 0o644); err != nil {
		t.Fatal(err)
	}
	u := c.upload().withDefaults("demo")
	_, err = u.publish(t.Context(), r.Path, r.Record, &lines{})
	check(t, err, "is damaged: not a gzip file", "delete it and try again")
}
