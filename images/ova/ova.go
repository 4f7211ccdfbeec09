// SPDX-License-Identifier: Apache-2.0

// Package ova writes and checks OVA files: a USTAR archive of an OVF envelope,
// its manifest, optionally the manifest's signature, and one disk, in that order
// (DMTF DSP0243 1.1, section 5.3). The disk is written straight to its place in
// the archive. It knows nothing of what the envelope or the disk holds, and
// refuses what USTAR can't hold rather than use an extension that importers
// don't read.
package ova

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"
)

// Version of the layout; it rises when the same package gives other bytes.
const Version = 1

const (
	block = 512
	// MaxMember is the longest member of a USTAR archive in bytes: eleven octal
	// digits.
	MaxMember = 8<<30 - 1
	// maxText bounds every member but the disk.
	maxText = 4 << 20
)

// modTime of all members: the first that every reader of archives finds
// plausible, so that the same input gives the same bytes.
var modTime = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// ErrTooLarge is a disk that no member of an OVA can hold.
var ErrTooLarge = errors.New("the compressed disk is 8 GiB or more, which no member of an OVA can be: " +
	"leave the stack's images out of the bake (factory = \"seed\"), or give disk.raw to those who would import the OVA")

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$`)

// DiskName is the name of the disk's member in a package of a name.
func DiskName(name string) string { return name + "-disk1.vmdk" }

// File is what an OVA is written to.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// Signer signs the manifest. The key is RSA and belongs to the certificate.
type Signer struct {
	Key         crypto.Signer
	Certificate *x509.Certificate
}

// Package is what goes into an OVA.
type Package struct {
	// Name of the members, without endings; at most 80 letters, digits, '.',
	// '_' and '-'.
	Name string
	// Signer may be nil: then the OVA has no certificate.
	Signer *Signer
	// Disk writes the disk to w, which is empty and reads as zeros, and says how
	// long it is in bytes.
	Disk func(ctx context.Context, w io.WriterAt) (int64, error)
	// Envelope writes the OVF for a disk of some length. It is called first with
	// MaxMember, for which its result must be the longest, then with what Disk
	// said.
	Envelope func(diskSize int64) ([]byte, error)
}

// Member is a file in an OVA; offset and size of its content in bytes.
type Member struct {
	Name         string
	Offset, Size int64
	SHA256       string
}

// Write writes an OVA to f, an empty file that reads as zeros where nothing was
// written, and says what is in it. The first header goes in last: what an
// interrupted call leaves is no archive.
func Write(ctx context.Context, f File, p Package) ([]Member, error) {
	if !nameRE.MatchString(p.Name) {
		return nil, fmt.Errorf("%q can't name an OVA: use at most 80 of letters, digits, '.', '_' and '-'", p.Name)
	}
	longest, err := p.Envelope(MaxMember)
	if err != nil {
		return nil, err
	}
	if len(longest) > maxText {
		return nil, fmt.Errorf("the OVF envelope has %d bytes, more than %d MiB: shorten its texts", len(longest), maxText>>20)
	}
	texts, err := p.texts(longest, "")
	if err != nil {
		return nil, err
	}
	members := make([]Member, 0, len(texts)+1)
	at := int64(0)
	for _, t := range texts {
		members = append(members, Member{Name: t.name, Offset: at + block, Size: int64(len(t.data))})
		at += block + padded(int64(len(t.data)))
	}
	disk := Member{Name: DiskName(p.Name), Offset: at + block}
	if disk.Size, err = p.Disk(ctx, &window{f, disk.Offset}); err != nil {
		return nil, err
	}
	if disk.Size > MaxMember {
		return nil, ErrTooLarge
	}
	if disk.SHA256, err = sum(ctx, io.NewSectionReader(f, disk.Offset, disk.Size)); err != nil {
		return nil, fmt.Errorf("read the disk back: %w", err)
	}
	envelope, err := p.Envelope(disk.Size)
	if err != nil {
		return nil, err
	}
	// The envelope's place was laid out for the most digits its numbers can
	// have; XML may end in white space.
	if len(envelope) > len(longest) {
		return nil, fmt.Errorf("the OVF envelope grew from %d to %d bytes", len(longest), len(envelope))
	}
	envelope = append(envelope, bytes.Repeat([]byte{'\n'}, len(longest)-len(envelope))...)
	if texts, err = p.texts(envelope, disk.SHA256); err != nil {
		return nil, err
	}
	end := disk.Offset + padded(disk.Size)
	// Two blocks of zeros end an archive.
	if _, err := f.WriteAt(make([]byte, 2*block), end); err != nil {
		return nil, err
	}
	if err := put(f, disk, nil); err != nil {
		return nil, err
	}
	for i, t := range slices.Backward(texts) {
		if members[i].Size != int64(len(t.data)) {
			return nil, fmt.Errorf("%s has %d bytes, laid out were %d", t.name, len(t.data), members[i].Size)
		}
		h := sha256.Sum256(t.data)
		members[i].SHA256 = hex.EncodeToString(h[:])
		if err := put(f, members[i], t.data); err != nil {
			return nil, err
		}
	}
	return append(members, disk), nil
}

type text struct {
	name string
	data []byte
}

// texts are the members before the disk. Their lengths do not depend on the
// disk's digest.
func (p Package) texts(envelope []byte, diskSHA256 string) ([]text, error) {
	if diskSHA256 == "" {
		diskSHA256 = hex.EncodeToString(make([]byte, sha256.Size))
	}
	ovf := p.Name + ".ovf"
	h := sha256.Sum256(envelope)
	manifest := fmt.Appendf(nil, "SHA256(%s)= %x\nSHA256(%s)= %s\n", ovf, h, DiskName(p.Name), diskSHA256)
	all := []text{{ovf, envelope}, {p.Name + ".mf", manifest}}
	if p.Signer == nil {
		return all, nil
	}
	digest := sha256.Sum256(manifest)
	// PKCS #1 v1.5 uses no randomness, so the same key gives the same bytes.
	signature, err := p.Signer.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign the manifest: %w", err)
	}
	cert := fmt.Appendf(nil, "SHA256(%s.mf)= %x\n", p.Name, signature)
	cert = append(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Signer.Certificate.Raw})...)
	return append(all, text{p.Name + ".cert", cert}), nil
}

// put writes a member's header, and data where it has any.
func put(f File, m Member, data []byte) error {
	var b bytes.Buffer
	h := &tar.Header{Typeflag: tar.TypeReg, Name: m.Name, Size: m.Size, Mode: 0o644, ModTime: modTime, Format: tar.FormatUSTAR}
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return err
	}
	if len(data) > 0 {
		if _, err := f.WriteAt(data, m.Offset); err != nil {
			return err
		}
	}
	_, err := f.WriteAt(b.Bytes(), m.Offset-block)
	return err
}

func padded(n int64) int64 { return (n + block - 1) / block * block }

// window is the disk's member, no longer than one can be.
type window struct {
	f  io.WriterAt
	at int64
}

func (w *window) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || off > MaxMember-int64(len(b)) {
		return 0, ErrTooLarge
	}
	return w.f.WriteAt(b, w.at+off)
}

// sum is the SHA-256 of r, 64 hex digits.
func sum(ctx context.Context, r io.Reader) (string, error) {
	h := sha256.New()
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		_, err := io.CopyN(h, r, 16<<20)
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}
