// SPDX-License-Identifier: Apache-2.0

package ova

import (
	"archive/tar"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
)

// maxMembers bounds what an archive may hold.
const maxMembers = 64

// ErrFormat is what every error about the content of an OVA is.
var ErrFormat = errors.New("not an OVA that every importer reads")

// Archive is an OVA open for reading.
type Archive struct {
	// Members in their order; SHA256 is what the manifest says of each.
	Members []Member
	// Certificate is the signer's, nil where the OVA has none. Whether it is to
	// be trusted is the caller's to judge.
	Certificate *x509.Certificate

	r io.ReaderAt
}

// Open reads the headers and texts of an OVA of size bytes and checks them: only
// USTAR, plain files with base names, the envelope first, a manifest that names
// every member, and a signature, if any, over it. Verify compares the digests.
// Errors about its content are ErrFormat.
func Open(r io.ReaderAt, size int64) (*Archive, error) {
	a := &Archive{r: r}
	if err := a.list(size); err != nil {
		return nil, err
	}
	if err := a.readManifest(); err != nil {
		return nil, err
	}
	return a, a.readCertificate()
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

func (a *Archive) list(size int64) error {
	section := io.NewSectionReader(a.r, 0, size)
	for t := tar.NewReader(section); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return bad("%v", err)
		}
		// archive/tar reads whole blocks and no further than it must, so this
		// is where the member starts.
		at, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		switch {
		case h.Format&tar.FormatUSTAR == 0 || h.Typeflag != tar.TypeReg || len(h.PAXRecords) > 0:
			return bad("member %q is not a plain file in USTAR format", h.Name)
		case h.Name != path.Base(h.Name) || h.Name == "." || h.Name == ".." || h.Name == "/":
			return bad("member %q is not a file name without folders", h.Name)
		case h.Size < 0 || h.Size > size-at:
			return bad("member %q is cut off", h.Name)
		case len(a.Members) == maxMembers:
			return bad("more than %d members", maxMembers)
		case a.member(h.Name) != nil:
			return bad("two members are called %q", h.Name)
		}
		a.Members = append(a.Members, Member{Name: h.Name, Offset: at, Size: h.Size})
	}
	if len(a.Members) == 0 || !strings.HasSuffix(a.Members[0].Name, ".ovf") {
		return bad("the first member is not an .ovf")
	}
	return nil
}

func (a *Archive) member(name string) *Member {
	for i := range a.Members {
		if a.Members[i].Name == name {
			return &a.Members[i]
		}
	}
	return nil
}

// base is the name of the package.
func (a *Archive) base() string { return strings.TrimSuffix(a.Members[0].Name, ".ovf") }

var lineRE = regexp.MustCompile(`^SHA256\(([^()]+)\)= ([0-9a-f]+)$`)

func (a *Archive) readManifest() error {
	name := a.base() + ".mf"
	data, err := a.text(name)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		m := lineRE.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil || len(m[2]) != 2*sha256.Size {
			return bad("%s has the line %.200q, not SHA256(name)= and 64 hex digits", name, line)
		}
		of := a.member(m[1])
		if of == nil || of.SHA256 != "" {
			return bad("%s names %q, which is no member or named twice", name, m[1])
		}
		of.SHA256 = m[2]
	}
	for _, m := range a.Members {
		if own := m.Name == name || m.Name == a.base()+".cert"; own != (m.SHA256 == "") {
			return bad("%s should name the members but itself and the certificate: %q", name, m.Name)
		}
	}
	return nil
}

func (a *Archive) readCertificate() error {
	name := a.base() + ".cert"
	if a.member(name) == nil {
		return nil
	}
	data, err := a.text(name)
	if err != nil {
		return err
	}
	line, rest, _ := strings.Cut(string(data), "\n")
	m := lineRE.FindStringSubmatch(line)
	if m == nil || m[1] != a.base()+".mf" {
		return bad("%s starts with %.200q, not with the manifest's signature", name, line)
	}
	signature, err := hex.DecodeString(m[2])
	if err != nil {
		return bad("%s: %v", name, err)
	}
	p, _ := pem.Decode([]byte(rest))
	if p == nil || p.Type != "CERTIFICATE" {
		return bad("%s holds no certificate", name)
	}
	cert, err := x509.ParseCertificate(p.Bytes)
	if err != nil {
		return bad("%s: %v", name, err)
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return bad("%s has a certificate that is not RSA", name)
	}
	manifest, err := a.text(a.base() + ".mf")
	if err != nil {
		return err
	}
	digest := sha256.Sum256(manifest)
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature); err != nil {
		return bad("the signature in %s does not fit the manifest", name)
	}
	a.Certificate = cert
	return nil
}

func (a *Archive) text(name string) ([]byte, error) {
	m := a.member(name)
	if m == nil {
		return nil, bad("it has no %s", name)
	}
	if m.Size > maxText {
		return nil, bad("%s has %d bytes", name, m.Size)
	}
	data := make([]byte, m.Size)
	if n, err := a.r.ReadAt(data, m.Offset); n < len(data) {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// Verify reads every member and compares it with the manifest.
func (a *Archive) Verify(ctx context.Context) error {
	for _, m := range a.Members {
		if m.SHA256 == "" {
			continue
		}
		got, err := sum(ctx, io.NewSectionReader(a.r, m.Offset, m.Size))
		if err != nil {
			return fmt.Errorf("read %s: %w", m.Name, err)
		}
		if got != m.SHA256 {
			return bad("%s has the digest %s, its manifest says %s: it was changed or damaged", m.Name, got, m.SHA256)
		}
	}
	return nil
}

// Envelope is the OVF document.
func (a *Archive) Envelope() ([]byte, error) { return a.text(a.Members[0].Name) }

// Disk is the first disk, a VMDK.
func (a *Archive) Disk() (*io.SectionReader, error) {
	for _, m := range a.Members {
		if strings.HasSuffix(m.Name, ".vmdk") {
			return io.NewSectionReader(a.r, m.Offset, m.Size), nil
		}
	}
	return nil, bad("it has no .vmdk")
}

// ExtractDisk copies the disk of the OVA file to a new file, digest checked.
func ExtractDisk(ctx context.Context, file, to string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	a, err := Open(f, st.Size())
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := a.Verify(ctx); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	disk, err := a.Disk()
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, disk); err != nil {
		out.Close()
		os.Remove(to)
		return err
	}
	return out.Close()
}
