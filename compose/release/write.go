// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// minKey is the least RSA key that counts (NIST SP 800-131A).
const minKey = 2048

// Write makes the OCI layout of a release in dir, which must be empty or
// missing: the description, the stack layer, the signature, and the images
// (by reference without digest) with their layers as the source has them.
// Where d.Factory is Seed only the images' manifests are read, to describe
// them, and nothing of them is written.
//
// Format, Stack and Images of d are filled in; what is set already must
// agree. Equal inputs make equal bytes: signer must be an RSA key, whose
// PKCS#1 v1.5 signatures are. Files are written plainly; making the folder
// durable, and giving it its name only when it is complete, is the caller's.
func Write(ctx context.Context, dir string, d Description, stackTar []byte, images map[string]v1.Image, signer crypto.Signer) error {
	return WriteKept(ctx, dir, d, stackTar, images, "", signer)
}

// WriteKept is Write with the layers of the images kept in the folder keep, as
// PartFiles.Keep says.
func WriteKept(ctx context.Context, dir string, d Description, stackTar []byte, images map[string]v1.Image, keep string, signer crypto.Signer) error {
	if d.Parts != nil {
		return fmt.Errorf("release: parts are described and not given")
	}
	_, err := write(ctx, dir, d, stackTar, images, nil, keep, signer)
	return err
}

// WriteFull is Write of a release that boxes upgrade to: with the parts of the
// operating system, whose files are parts. d.Parts is filled in too, d.Verity
// must be set. It returns the digest of the release manifest, "sha256:<hex>".
func WriteFull(ctx context.Context, dir string, d Description, stackTar []byte, images map[string]v1.Image, parts PartFiles, signer crypto.Signer) (digest string, err error) {
	return write(ctx, dir, d, stackTar, images, &parts, parts.Keep, signer)
}

func write(ctx context.Context, dir string, d Description, stackTar []byte, images map[string]v1.Image, parts *PartFiles, keep string, signer crypto.Signer) (digest string, err error) {
	key, ok := signer.Public().(*rsa.PublicKey)
	if !ok || key.N.BitLen() < minKey {
		return "", fmt.Errorf("release: the signing key must be an RSA key of at least %d bits", minKey)
	}
	if len(stackTar) == 0 || len(stackTar) > maxStack {
		return "", fmt.Errorf("release: the stack layer has %d bytes; it must have 1 to %d", len(stackTar), maxStack)
	}
	for _, sub := range []string{dir, filepath.Join(dir, filepath.FromSlash(blobDir))} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return "", err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) != 1 {
		return "", fmt.Errorf("release: %s is not empty", dir)
	}
	w := &writer{dir: dir, keep: keep, done: map[string]bool{}}
	if parts != nil {
		if d.Parts, err = w.parts(ctx, *parts, d.Parts); err != nil {
			return "", err
		}
	}

	made := make([]Image, 0, len(images))
	for ref, img := range images {
		im, err := describe(ref, img)
		if err != nil {
			return "", fmt.Errorf("release: %s: %w", ref, err)
		}
		made = append(made, im)
	}
	slices.SortFunc(made, func(a, b Image) int { return cmp.Compare(a.Ref, b.Ref) })
	if err := d.complete(stackTar, made); err != nil {
		return "", err
	}
	for _, im := range d.Images {
		if d.Factory == Seed {
			break
		}
		if err := w.image(ctx, images[im.Ref]); err != nil {
			return "", fmt.Errorf("release: %s: %w", im.Ref, err)
		}
	}
	config, err := json.Marshal(d)
	if err != nil {
		return "", err
	}
	manifest, err := artifact(config, stackTar, d.Parts)
	if err != nil {
		return "", err
	}
	idx, err := index(manifest, d)
	if err != nil {
		return "", err
	}
	for _, b := range [][]byte{config, stackTar, manifest} {
		if err := w.blob(v1Hash(b), int64(len(b)), io.NopCloser(bytes.NewReader(b))); err != nil {
			return "", err
		}
	}
	sum := sha256.Sum256(manifest)
	sig, err := signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("release: sign: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"oci-layout", layoutFile}, {"index.json", idx}, {SignatureFile, sig}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.data, 0o644); err != nil {
			return "", err
		}
	}
	return v1Hash(manifest).String(), nil
}

// complete fills in what follows from the inputs and refuses what
// contradicts them.
func (d *Description) complete(stackTar []byte, images []Image) error {
	if d.Format != 0 && d.Format != FormatVersion {
		return fmt.Errorf("release: format %d, this program writes %d", d.Format, FormatVersion)
	}
	d.Format = FormatVersion
	digest := v1Hash(stackTar).String()
	if d.Stack != "" && d.Stack != digest {
		return fmt.Errorf("release: the stack layer is %s, the description says %s", digest, d.Stack)
	}
	d.Stack = digest
	for _, want := range d.Images {
		i := slices.IndexFunc(images, func(im Image) bool { return im.Ref == want.Ref })
		switch {
		case i < 0:
			return fmt.Errorf("release: the image %s is described and not given", want.Ref)
		case images[i].Digest != want.Digest:
			return fmt.Errorf("release: the image %s is %s, the description says %s", want.Ref, images[i].Digest, want.Digest)
		case want.Size != 0 && images[i].Size != want.Size:
			return fmt.Errorf("release: the image %s has %d bytes, the description says %d", want.Ref, images[i].Size, want.Size)
		}
	}
	if d.Images != nil && len(d.Images) != len(images) {
		return fmt.Errorf("release: %d images are described and %d given", len(d.Images), len(images))
	}
	d.Images = images
	return d.check()
}

func describe(ref string, img v1.Image) (Image, error) {
	h, err := img.Digest()
	if err != nil {
		return Image{}, err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return Image{}, err
	}
	m, err := img.Manifest()
	if err != nil {
		return Image{}, err
	}
	mt, err := img.MediaType()
	if err != nil {
		return Image{}, err
	}
	im := Image{Ref: ref, Digest: h.String(), Manifest: int64(len(raw)), MediaType: string(mt)}
	im.Size = im.Manifest + m.Config.Size
	for _, l := range m.Layers {
		im.Size += l.Size
	}
	return im, nil
}

func v1Hash(b []byte) v1.Hash {
	sum := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// writer puts blobs under their digest, each once.
type writer struct {
	dir  string
	keep string // folder of blobs to link to, "" for none
	done map[string]bool
}

func (w *writer) image(ctx context.Context, img v1.Image) error {
	raw, err := img.RawManifest()
	if err != nil {
		return err
	}
	if err := w.blob(v1Hash(raw), int64(len(raw)), io.NopCloser(bytes.NewReader(raw))); err != nil {
		return err
	}
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	if err := w.blob(m.Config.Digest, m.Config.Size, io.NopCloser(bytes.NewReader(config))); err != nil {
		return err
	}
	for _, l := range m.Layers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if w.done[l.Digest.String()] {
			continue
		}
		open := func() (io.ReadCloser, error) {
			layer, err := img.LayerByDigest(l.Digest)
			if err != nil {
				return nil, err
			}
			rc, err := layer.Compressed()
			if err != nil {
				return nil, fmt.Errorf("layer %s: %w", l.Digest, err)
			}
			return rc, nil
		}
		if err := w.layer(l.Digest, l.Size, open); err != nil {
			return err
		}
	}
	return nil
}

// blob writes one blob and fails unless the bytes are the digest's.
func (w *writer) blob(h v1.Hash, size int64, rc io.ReadCloser) (err error) {
	defer rc.Close()
	if w.done[h.String()] {
		return nil
	}
	if !digestForm.MatchString(h.String()) {
		return fmt.Errorf("blob %s: only sha256 digests are taken", h)
	}
	f, err := os.OpenFile(w.path(h.String()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := copyBlob(f, h, size, rc); err != nil {
		return err
	}
	w.done[h.String()] = true
	return nil
}

func (w *writer) path(digest string) string {
	return filepath.Join(w.dir, filepath.FromSlash(blobPath(digest)))
}

// copyBlob copies size bytes and fails unless they are the digest's.
func copyBlob(dst io.Writer, h v1.Hash, size int64, src io.Reader) error {
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(dst, sum), io.LimitReader(src, size+1))
	if err != nil {
		return fmt.Errorf("blob %s: %w", h, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n != size || got != h.Hex {
		return fmt.Errorf("blob %s of %d bytes: the source has sha256:%s of %d bytes or more; it is damaged", h, size, got, n)
	}
	return nil
}
