// SPDX-License-Identifier: Apache-2.0

//go:build engine

package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ebs"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/builder/target/ami"
)

// TestMain lets the test binary be an upload of its own, to be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "describe" || os.Args[1] == "start") {
		if err := plugin(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	text := os.Getenv("HOLDFAST_TEST_PUBLISH")
	if text == "" {
		code := m.Run()
		if server != nil {
			server.Stop()
		}
		os.Exit(code)
	}
	var c child
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		_, err = c.publish(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

type child struct {
	Dir     string
	Options ami.Options
}

func (c child) publish(ctx context.Context) (*ami.Result, error) {
	d, err := target.Open(c.Dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return ami.Publish(ctx, d, c.Options, &lines{})
}

type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.text, format+"\n", args...)
}

func (l *lines) Warn(format string, args ...any) { l.Say("WARNING: "+format, args...) }

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

const region = "eu-central-1"

// server is the one moto of all tests, which empty it in turns.
var server *Moto

// account is an empty account: moto's server with a proxy before it.
func account(t *testing.T) *Proxy {
	t.Helper()
	tree := os.Getenv("HOLDFAST_TOOLS")
	if tree == "" {
		t.Fatal("set HOLDFAST_TOOLS to an unpacked tools tree (make tools prints one)")
	}
	ebsModel, err := LoadModel(tree, "ebs/2019-11-02")
	if err != nil {
		t.Fatal(err)
	}
	ec2Model, err := LoadModel(tree, "ec2/2016-11-15")
	if err != nil {
		t.Fatal(err)
	}
	if server == nil {
		if server, err = StartMoto(tree); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := NewProxy(server.URL, ebsModel, ec2Model)
	t.Cleanup(p.Close)
	t.Cleanup(func() {
		if bad := p.Bad(); len(bad) > 0 {
			t.Errorf("%d requests that the service models do not allow, the first: %s", len(bad), bad[0])
		}
	})
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	return p
}

func (p *Proxy) options(t *testing.T) ami.Options {
	return ami.Options{
		Access: ami.Access{Region: region, AccessKey: "AKIDEXAMPLE", SecretKey: "secret", EC2: p.URL, EBS: p.URL},
		Cache:  t.TempDir(),
		// No wait for a state takes as long as in AWS.
		Patience: ami.Patience{Poll: 10 * time.Millisecond, MaxPoll: 50 * time.Millisecond, Backoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond},
	}
}

// baked is the demo's output folder.
func baked(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("HOLDFAST_IMAGE")
	if dir == "" {
		dir = filepath.Join("..", "..", "dist", "demo-1.0.0")
	}
	if _, err := os.Stat(filepath.Join(dir, target.DiskName)); err != nil {
		t.Fatalf("no baked disk: run `make image`, or set HOLDFAST_IMAGE to an output folder (%v)", err)
	}
	return dir
}

// linked is an output folder of its own with the demo's disk.
func linked(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{target.DiskName, builder.ManifestName} {
		from, err := filepath.Abs(filepath.Join(baked(t), name))
		if err == nil {
			err = os.Symlink(from, filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// part is an output folder whose disk is the first mib MiB of the demo's, with
// changes.
func part(t *testing.T, mib int64, change func(f *os.File) error) string {
	t.Helper()
	from, dir := baked(t), t.TempDir()
	m, err := builder.ReadManifest(from)
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(filepath.Join(from, target.DiskName))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(dir, target.DiskName))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	buf := make([]byte, 1<<20)
	for i := range mib {
		if _, err := src.ReadAt(buf, i<<20); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(buf, make([]byte, len(buf))) {
			if _, err := dst.WriteAt(buf, i<<20); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := dst.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		if err := change(dst); err != nil {
			t.Fatal(err)
		}
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(dst, 0, mib<<20)); err != nil {
		t.Fatal(err)
	}
	m.Files = []builder.ManifestFile{{Name: target.DiskName, Bytes: mib << 20, SHA256: hex.EncodeToString(h.Sum(nil))}}
	b, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, builder.ManifestName), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// sameAs fails unless a snapshot, read back block by block, is disk.raw.
func (p *Proxy) sameAs(t *testing.T, snapshot, dir string) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, target.DiskName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	c := ebs.New(ebs.Options{Region: region, BaseEndpoint: &p.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")})
	tokens := map[int32]string{}
	pages := ebs.NewListSnapshotBlocksPaginator(c, &ebs.ListSnapshotBlocksInput{SnapshotId: &snapshot})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range page.Blocks {
			tokens[*b.BlockIndex] = *b.BlockToken
		}
	}
	zeros, want, got := make([]byte, BlockSize), make([]byte, BlockSize), make([]byte, BlockSize)
	read := 0
	for i := int32(0); int64(i)*BlockSize < st.Size(); i++ {
		clear(want)
		if _, err := f.ReadAt(want, int64(i)*BlockSize); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		copy(got, zeros)
		if token, ok := tokens[i]; ok {
			out, err := c.GetSnapshotBlock(t.Context(), &ebs.GetSnapshotBlockInput{SnapshotId: &snapshot, BlockIndex: awssdk.Int32(i), BlockToken: &token})
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadFull(out.BlockData, got)
			out.BlockData.Close()
			if err != nil {
				t.Fatal(err)
			}
			read++
		}
		delete(tokens, i)
		if !bytes.Equal(got, want) {
			t.Fatalf("block %d of %s is not that of %s", i, snapshot, f.Name())
		}
	}
	for i := range tokens {
		t.Errorf("block %d of %s lies beyond the disk", i, snapshot)
	}
	t.Logf("%s: %d blocks read back, equal to all %d bytes of %s", snapshot, read, st.Size(), f.Name())
}

// only fails when the account holds other images and snapshots than these.
func (p *Proxy) only(t *testing.T, images, snapshots int) {
	t.Helper()
	if i, s := p.Images(), p.Snapshots(); len(i) != images || len(s) != snapshots {
		t.Errorf("the account holds %d images and %d snapshots, want %d and %d", len(i), len(s), images, snapshots)
	}
}
