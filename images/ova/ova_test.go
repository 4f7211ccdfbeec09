// SPDX-License-Identifier: Apache-2.0

package ova

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// signer makes a pair once for all tests.
var signer = sync.OnceValue(func() *Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return &Signer{Key: key, Certificate: cert}
})

// sample is a package with a disk of some bytes.
func sample(disk []byte, s *Signer) Package {
	return Package{
		Name: "demo-1.0.0", Signer: s,
		Disk: func(_ context.Context, w io.WriterAt) (int64, error) {
			// The end first: nothing says that a disk is written in order.
			half := len(disk) / 2
			if _, err := w.WriteAt(disk[half:], int64(half)); err != nil {
				return 0, err
			}
			if _, err := w.WriteAt(disk[:half], 0); err != nil {
				return 0, err
			}
			return int64(len(disk)), nil
		},
		Envelope: func(size int64) ([]byte, error) {
			return fmt.Appendf(nil, "<Envelope size=\"%d\"/>\n", size), nil
		},
	}
}

// write makes an OVA file.
func write(t testing.TB, p Package) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "x.ova"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Write(t.Context(), f, p); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWrite(t *testing.T) {
	for _, size := range []int{1, 511, 512, 100_000} {
		for _, s := range []*Signer{nil, signer()} {
			disk := bytes.Repeat([]byte("disk "), size/5+1)[:size]
			file := write(t, sample(disk, s))
			b := read(t, file)
			if again := read(t, write(t, sample(disk, s))); !bytes.Equal(b, again) {
				t.Error("two calls make other bytes")
			}
			checkTar(t, b, disk, s != nil)
			a, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Verify(t.Context()); err != nil {
				t.Error(err)
			}
			if (a.Certificate != nil) != (s != nil) {
				t.Errorf("certificate %v", a.Certificate)
			}
			envelope, err := a.Envelope()
			if want := fmt.Sprintf("<Envelope size=\"%d\"/>", size); err != nil || strings.TrimRight(string(envelope), "\n") != want {
				t.Errorf("envelope %q, %v", envelope, err)
			}
			out := filepath.Join(t.TempDir(), "disk.vmdk")
			if err := ExtractDisk(t.Context(), file, out); err != nil || !bytes.Equal(read(t, out), disk) {
				t.Errorf("the disk differs, %v", err)
			}
		}
	}
}

// checkTar reads the archive with archive/tar and holds it against the format.
func checkTar(t *testing.T, b, disk []byte, signed bool) {
	t.Helper()
	var names []string
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o644 || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(modTime) {
			t.Errorf("%+v", h)
		}
		names = append(names, h.Name)
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	want := "demo-1.0.0.ovf demo-1.0.0.mf demo-1.0.0-disk1.vmdk"
	if signed {
		want = "demo-1.0.0.ovf demo-1.0.0.mf demo-1.0.0.cert demo-1.0.0-disk1.vmdk"
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("members %s, want %s", got, want)
	}
	if !bytes.Equal(files["demo-1.0.0-disk1.vmdk"], disk) {
		t.Error("the disk differs")
	}
	if !bytes.Equal(b[257:265], []byte("ustar\x0000")) {
		t.Errorf("magic %q", b[257:265])
	}
	if len(b)%512 != 0 || !bytes.Equal(b[len(b)-1024:], make([]byte, 1024)) {
		t.Error("it does not end with two blocks of zeros")
	}
}

func TestWriteRefuses(t *testing.T) {
	disk := []byte("disk")
	for _, c := range []struct {
		name, want string
		change     func(p *Package)
	}{
		{"name", "can't name an OVA", func(p *Package) { p.Name = "a/b" }},
		{"empty name", "can't name an OVA", func(p *Package) { p.Name = "" }},
		{"long name", "can't name an OVA", func(p *Package) { p.Name = strings.Repeat("a", 81) }},
		{"large envelope", "shorten its texts", func(p *Package) {
			p.Envelope = func(int64) ([]byte, error) { return make([]byte, maxText+1), nil }
		}},
		{"growing envelope", "grew", func(p *Package) {
			p.Envelope = func(n int64) ([]byte, error) { return make([]byte, 100+min(n, 5)-min(n/1000, 5)), nil }
		}},
		{"disk fails", "broke", func(p *Package) {
			p.Disk = func(context.Context, io.WriterAt) (int64, error) { return 0, errors.New("source broke") }
		}},
		{"disk of 8 GiB", "factory = \"seed\"", func(p *Package) {
			p.Disk = func(context.Context, io.WriterAt) (int64, error) { return 8 << 30, nil }
		}},
		{"disk that grows past 8 GiB", "factory = \"seed\"", func(p *Package) {
			p.Disk = func(_ context.Context, w io.WriterAt) (int64, error) {
				_, err := w.WriteAt(make([]byte, 512), 8<<30-511)
				return 0, err
			}
		}},
		{"disk full", "no space left", func(p *Package) {
			p.Disk = func(context.Context, io.WriterAt) (int64, error) { return 0, unix.ENOSPC }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := sample(disk, nil)
			c.change(&p)
			f, err := os.Create(filepath.Join(t.TempDir(), "x"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := Write(t.Context(), f, p); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			head := make([]byte, 512)
			if n, err := f.ReadAt(head, 0); err != io.EOF && err != nil || !bytes.Equal(head, make([]byte, 512)) {
				t.Errorf("what is left looks like an archive: %d, %v", n, err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	good := read(t, write(t, sample(bytes.Repeat([]byte{1}, 3000), signer())))
	other := func(write func(w *tar.Writer)) func([]byte) []byte {
		return func([]byte) []byte {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			write(w)
			w.Close()
			return b.Bytes()
		}
	}
	file := func(w *tar.Writer, name, content string) {
		w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644, Format: tar.FormatUSTAR})
		io.WriteString(w, content)
	}
	for _, c := range []struct {
		name, want string
		change     func(b []byte) []byte
	}{
		{"nothing", "first member", func([]byte) []byte { return nil }},
		{"not tar", "invalid tar header", func([]byte) []byte { return bytes.Repeat([]byte("x"), 1024) }},
		{"cut off", "cut off", func(b []byte) []byte { return b[:len(b)-3000] }},
		{"a bit of the disk", "changed or damaged", func(b []byte) []byte { b[len(b)-2000] ^= 1; return b }},
		{"a bit of the envelope", "changed or damaged", func(b []byte) []byte { b[515] ^= 1; return b }},
		{"a bit of the manifest", "signature", func(b []byte) []byte {
			i := bytes.Index(b, []byte("SHA256(demo-1.0.0-disk1.vmdk)= "))
			b[i+32] = "01"[1-b[i+32]&1]
			return b
		}},
		{"no manifest", "no x.mf", other(func(w *tar.Writer) { file(w, "x.ovf", "<x/>") })},
		{"manifest first", "not an .ovf", other(func(w *tar.Writer) { file(w, "x.mf", "") })},
		{"pax", "USTAR", other(func(w *tar.Writer) {
			w.WriteHeader(&tar.Header{Name: "x.ovf", PAXRecords: map[string]string{"HOLDFAST.x": "y"}, Format: tar.FormatPAX})
		})},
		{"folder", "without folders", other(func(w *tar.Writer) { file(w, "a/x.ovf", "") })},
		{"up", "without folders", other(func(w *tar.Writer) { file(w, "../x.ovf", "") })},
		{"link", "plain file", other(func(w *tar.Writer) {
			w.WriteHeader(&tar.Header{Name: "x.ovf", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink, Format: tar.FormatUSTAR})
		})},
		{"twice", "two members", other(func(w *tar.Writer) { file(w, "x.ovf", ""); file(w, "x.ovf", "") })},
		{"other digest", "not SHA256", other(func(w *tar.Writer) { file(w, "x.ovf", ""); file(w, "x.mf", "SHA1(x.ovf)= 00\n") })},
		{"names another", "no member", other(func(w *tar.Writer) {
			file(w, "x.ovf", "")
			file(w, "x.mf", "SHA256(y.ovf)= "+strings.Repeat("0", 64)+"\n")
		})},
		{"does not name all", "should name", other(func(w *tar.Writer) { file(w, "x.ovf", ""); file(w, "x.mf", "") })},
		{"certificate is none", "signature", other(func(w *tar.Writer) {
			file(w, "x.ovf", "")
			file(w, "x.mf", "SHA256(x.ovf)= "+strings.Repeat("0", 64)+"\n")
			file(w, "x.cert", "hello")
		})},
		{"many", "more than 64", other(func(w *tar.Writer) {
			for i := range 70 {
				file(w, fmt.Sprint(i, ".ovf"), "")
			}
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.change(bytes.Clone(good))
			a, err := Open(bytes.NewReader(b), int64(len(b)))
			if err == nil {
				err = a.Verify(t.Context())
			}
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestVerifyStops(t *testing.T) {
	b := read(t, write(t, sample([]byte("disk"), nil)))
	a, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Verify(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	file := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ExtractDisk(t.Context(), write(t, sample([]byte("disk"), nil)), file); !errors.Is(err, os.ErrExist) || string(read(t, file)) != "mine" {
		t.Errorf("over a file that is there: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(read(f, write(f, sample([]byte("disk"), nil))))
	f.Add(read(f, write(f, sample([]byte("disk"), signer()))))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Open(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			err = a.Verify(t.Context())
			if _, e := a.Envelope(); e != nil && !errors.Is(e, ErrFormat) {
				t.Error(e)
			}
		}
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%v is not ErrFormat", err)
		}
	})
}
