// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// window is read at a time, overlap is carried on so that a match across
	// two windows is seen: longer than any pattern below can match.
	window  = 1 << 20
	overlap = 512
	// maxWindow bounds zstd's memory.
	maxWindow = 256 << 20
)

// secret is a file that holds what must not be in an image.
type secret struct{ path, what string }

// metadataUser is a file that names the metadata address.
type metadataUser struct {
	path  string
	token bool
}

// pattern finds a secret: word is searched for fast, and full decides around
// where it was found.
type pattern struct {
	word []byte
	full *regexp.Regexp
	what string
}

// patterns. A program that knows how to read keys has the header line too; only
// a key has its content behind it.
var patterns = []pattern{
	{
		[]byte("PRIVATE KEY"),
		regexp.MustCompile(`-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:\r?\n|\\n|\\r\\n)\s*(?:[A-Za-z0-9+/=]{24}|Proc-Type:|Version:|Comment:)`),
		"a private key (PEM)",
	},
	{[]byte("PuTTY-User-Key-File-"), regexp.MustCompile(`PuTTY-User-Key-File-[0-9]: (?:ssh-|ecdsa-)`), "a private key (PuTTY)"},
	{[]byte("AGE-SECRET-KEY-1"), regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]{50}`), "a private key (age)"},
	{[]byte("aws_secret_access_key"), regexp.MustCompile(`(?i)aws_secret_access_key["']?\s*[=:]\s*["']?[A-Za-z0-9/+]{40}(?:[^A-Za-z0-9/+]|$)`), "an AWS secret access key"},
	{[]byte("AWS_SECRET_ACCESS_KEY"), regexp.MustCompile(`AWS_SECRET_ACCESS_KEY["']?\s*[=:]\s*["']?[A-Za-z0-9/+]{40}(?:[^A-Za-z0-9/+]|$)`), "an AWS secret access key"},
	{[]byte("AKIA"), regexp.MustCompile(`(?:^|[^A-Za-z0-9+/_])AKIA[A-Z2-7]{16}(?:[^A-Za-z0-9+/=_]|$)`), "an AWS access key id"},
	{[]byte("_authToken="), regexp.MustCompile(`_authToken=[A-Za-z0-9_-]{20}`), "a registry token"},
}

var (
	metadataAddresses = [][]byte{[]byte("169.254.169.254"), []byte("fd00:ec2::254"), []byte("instance-data.ec2.internal")}
	// tokenHeader ends the name of IMDSv2's header in any case of its first letter.
	tokenHeader = []byte("aws-ec2-metadata-token")
)

// scanner looks through one file.
type scanner struct {
	tree     *Tree
	path     string
	found    map[string]bool
	metadata bool
	token    bool
}

// scan reads all of r.
func (s *scanner) scan(r io.Reader) error {
	if s.tree.buffer == nil {
		s.tree.buffer = make([]byte, 0, window+overlap)
	}
	buf := s.tree.buffer[:0]
	for {
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		s.look(buf)
		if last {
			s.done()
			return nil
		}
		buf = buf[:copy(buf, buf[len(buf)-overlap:])]
	}
}

// see looks through a file that is in memory.
func (s *scanner) see(b []byte) {
	s.look(b)
	s.done()
}

func (s *scanner) look(b []byte) {
	for _, p := range patterns {
		if s.found[p.what] {
			continue
		}
		for at := 0; ; {
			i := bytes.Index(b[at:], p.word)
			if i < 0 {
				break
			}
			at += i
			around := b[max(0, at-128):min(len(b), at+overlap-128)]
			if m := p.full.Find(around); m != nil && !bytes.Contains(m, []byte("EXAMPLE")) {
				if s.found == nil {
					s.found = map[string]bool{}
				}
				s.found[p.what] = true
				s.tree.secrets = append(s.tree.secrets, secret{s.path, p.what})
				break
			}
			at += len(p.word)
		}
	}
	for _, a := range metadataAddresses {
		s.metadata = s.metadata || bytes.Contains(b, a)
	}
	s.token = s.token || bytes.Contains(b, tokenHeader)
}

func (s *scanner) done() {
	if s.metadata {
		s.tree.metadata = append(s.tree.metadata, metadataUser{s.path, s.token})
	}
}

// layer looks into a blob of an OCI layout: a layer's files, by name and
// content, or the blob itself when it is no layer.
func (t *Tree) layer(blob string, r io.Reader) error {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(262)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var in io.Reader = br
	switch {
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxWindow))
		if err != nil {
			return err
		}
		defer z.Close()
		in = z
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return err
		}
		in = z
	case len(head) == 262 && string(head[257:262]) == "ustar":
	default:
		s := scanner{tree: t, path: blob}
		return s.scan(br)
	}
	t.layers++
	return t.unpack(blob, in)
}

func (t *Tree) unpack(blob string, in io.Reader) error {
	tr := tar.NewReader(in)
	for names := 0; ; names++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil || names > maxEntries {
			return fmt.Errorf("a layer does not unpack: %w", errors.Join(err, errTooMany(names)))
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := t.count(h); err != nil {
			return err
		}
		name := short(blob) + ": /" + strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if what := credentialFile(strings.TrimPrefix(path.Clean("/"+h.Name), "/")); what != "" && h.Size > 0 {
			t.secrets = append(t.secrets, secret{name, what})
		}
		s := scanner{tree: t, path: name}
		if err := s.scan(tr); err != nil {
			return err
		}
	}
}

func errTooMany(n int) error {
	if n > maxEntries {
		return fmt.Errorf("it has more than %d names", maxEntries)
	}
	return nil
}

// short is a digest's first digits, as one can search for in an index.
func short(blob string) string { return "layer " + path.Base(blob)[:min(12, len(path.Base(blob)))] }

// credentialFile says what a file is by its name, "" when it is nothing.
func credentialFile(p string) string {
	dir, base := path.Split("/" + p)
	switch {
	case strings.HasPrefix(base, "authorized_keys"):
		return "keys that may log in"
	case base == ".netrc" || base == "_netrc":
		return "logins of web sites"
	case base == ".pgpass" || base == ".my.cnf" || base == ".mylogin.cnf":
		return "logins of databases"
	case base == ".git-credentials" || base == ".npmrc" || base == ".pypirc" || base == ".dockercfg":
		return "logins of registries"
	case strings.HasSuffix(dir, "/.docker/") && base == "config.json":
		return "logins of registries"
	case strings.HasSuffix(dir, "/.aws/") && (base == "credentials" || base == "config"):
		return "AWS credentials"
	case strings.HasSuffix(dir, "/.config/gcloud/"), base == "application_default_credentials.json":
		return "Google credentials"
	case strings.HasSuffix(dir, "/.azure/"), strings.HasSuffix(dir, "/.kube/") && base == "config":
		return "cloud credentials"
	case strings.HasSuffix(dir, "/.gnupg/private-keys-v1.d/"), base == "secring.gpg":
		return "private keys"
	case strings.HasSuffix(dir, "/.ssh/") && strings.HasPrefix(base, "id_") && !strings.HasSuffix(base, ".pub"):
		return "a private key"
	case strings.HasSuffix(base, ".p12"), strings.HasSuffix(base, ".pfx"), strings.HasSuffix(base, ".jks"):
		return "a key store"
	case base == ".htpasswd":
		return "password hashes"
	}
	return ""
}
