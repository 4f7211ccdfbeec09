// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"archive/tar"
	"bytes"
	"io"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/holdfast/holdfast/images/internal/efitest"
	"github.com/holdfast/holdfast/images/pe"
)

// rootFS is a root by path: a file's content, or what file and mode say.
type rootFS map[string]node

type node struct {
	kind    byte // '0' when 0
	content string
	mode    int64 // 0644 when 0
	link    string
	pax     map[string]string
}

func text(s string) node { return node{content: s} }
func link(to string) node {
	return node{kind: tar.TypeSymlink, link: to, mode: 0o777}
}
func dir(mode int64) node { return node{kind: tar.TypeDir, mode: mode} }

func tarOf(t testing.TB, files rootFS) []byte {
	t.Helper()
	var names []string
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		n := files[name]
		h := &tar.Header{Name: name, Typeflag: n.kind, Mode: n.mode, Linkname: n.link, Size: int64(len(n.content)), PAXRecords: n.pax, Format: tar.FormatPAX}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(name, err)
		}
		if _, err := w.Write([]byte(n.content)); err != nil {
			t.Fatal(name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pemKey is built at run time, so that no scanner takes this file for a key.
func pemKey(kind string) string {
	return "-----BEGIN " + kind + "PRIVATE" + " KEY-----\n" + strings.Repeat("MIIEvQIBADANBgkq", 4) + "\n-----END " + kind + "PRIVATE" + " KEY-----\n"
}

// good is a root that nothing is wrong with.
func good() rootFS {
	return rootFS{
		"etc/shadow":                   text("root:*:20000:0:99999:7:::\nsshd:!*:20000::::::\n"),
		"etc/passwd":                   text("root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"),
		"etc/group":                    text("root:x:0:\nsudo:x:27:\n"),
		"etc/gshadow":                  text("root:*::\nsudo:*::\n"),
		"etc/machine-id":               text(""),
		"etc/hosts":                    text("127.0.0.1 localhost\n::1 localhost\n"),
		"etc/resolv.conf":              link("/run/systemd/resolve/stub-resolv.conf"),
		"etc/os-release":               link("../usr/lib/os-release"),
		"usr/lib/os-release":           text("ID=debian\nVERSION_ID=\"13\"\n"),
		"etc/ssh/sshd_config":          text("Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitEmptyPasswords no\n"),
		"usr/sbin/sshd":                node{content: "\x7fELF -----BEGIN OPENSSH PRIVATE" + " KEY-----\n\x00", mode: 0o755},
		"usr/bin/su":                   node{content: "x", mode: 0o4755},
		"usr/bin/agent":                node{content: "169.254.169.254 X-aws-ec2-metadata-token", mode: 0o755},
		"tmp":                          dir(0o1777),
		"var/lib/dpkg":                 link("../../usr/lib/sysimage/dpkg"),
		"usr/lib/sysimage/dpkg/status": text("Package: base-files\nStatus: install ok installed\nVersion: 13.8\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n"),
		"dev/null":                     node{kind: tar.TypeChar, mode: 0o666},

		"usr/lib/systemd/system/ours-sshd.service": text("[Unit]\nConditionPathExists=/run/holdfast/ssh/authorized_keys\n[Service]\nExecStart=/usr/sbin/sshd -D -e\n"),
		"usr/lib/systemd/system/ssh.service":       text("[Service]\nExecStart=/usr/sbin/sshd -D\n"),
		"etc/systemd/system/ssh.service":           link("/dev/null"),

		"etc/systemd/system/multi-user.target.wants/ours-sshd.service": link("/usr/lib/systemd/system/ours-sshd.service"),
		"usr/lib/systemd/system/multi-user.target.wants/ssh.service":   link("../ssh.service"),
	}
}

func goodBoot(t testing.TB) *Boot {
	t.Helper()
	signed := func(b []byte) []byte {
		f, err := pe.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		at := len(b)
		// A certificate table of eight bytes is enough to count as signed.
		b = append(b, 8, 0, 0, 0, 0, 2, 2, 0)
		for i, v := range []int{at, 8} {
			for j := range 4 {
				b[int(f.CertDirAt)+4*i+j] = byte(v >> (8 * j))
			}
		}
		return b
	}
	cmdline := "root=/dev/mapper/root ro console=ttyS0 systemd.firstboot=0 rd.systemd.gpt_auto=0 panic=10"
	return &Boot{
		Files:    []string{"EFI/BOOT/BOOTX64.EFI", "EFI/Linux/holdfast-0000000001.efi", "loader/loader.conf"},
		Programs: []Program{{Path: "EFI/Linux/holdfast-0000000001.efi", Image: signed(efitest.UKI("linux", "initrd", cmdline)), Kernel: true, Cmdlines: []string{cmdline}}},
		Small:    map[string][]byte{"loader/loader.conf": []byte("timeout 0\neditor no\n")},
	}
}

const goodSBOM = `{"bomFormat":"CycloneDX","components":[{"name":"base-files","version":"13.8","purl":"pkg:deb/debian/base-files@13.8?arch=amd64"}]}`

var day = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func imageOf(t testing.TB, files rootFS) Image {
	t.Helper()
	root, err := ReadRoot(bytes.NewReader(tarOf(t, files)))
	if err != nil {
		t.Fatal(err)
	}
	return Image{Root: root, Boot: goodBoot(t), SBOM: []byte(goodSBOM), Now: day}
}

func row(t testing.TB, rep Report, name string) Row {
	t.Helper()
	for _, r := range rep.Rows {
		if r.Check == name {
			return r
		}
	}
	t.Fatalf("there is no check %q", name)
	return Row{}
}

// TestGoodImage: every row is ok, but the one that says what is not checked.
func TestGoodImage(t *testing.T) {
	rep := Check(imageOf(t, good()))
	for _, r := range rep.Rows {
		if want := map[bool]Result{true: Note, false: OK}[r.Check == "vulnerabilities"]; r.Result != want {
			t.Errorf("%s is %s: %v", r.Check, r.Result, r.Found)
		}
		if r.LookedAt == "" || r.Rule == "" || r.Why == "" || r.Remedy == "" {
			t.Errorf("%s leaves something unsaid: %+v", r.Check, r)
		}
	}
	if rep.Refused != 0 || rep.Notes != 1 {
		t.Errorf("%d refused, %d notes", rep.Refused, rep.Notes)
	}
	if !strings.Contains(row(t, rep, "ssh-start").LookedAt, "/run/holdfast/ssh/authorized_keys") {
		t.Errorf("it does not say what the daemon waits for: %s", row(t, rep, "ssh-start").LookedAt)
	}
}

// TestLayers: what is in the layers of the stack's images counts, however they
// are packed.
func TestLayers(t *testing.T) {
	plain := tarOf(t, rootFS{"etc/ssl/private/snakeoil.key": text(pemKey("")), "root/.npmrc": text("x"), "etc/ok": text("x")})
	var zs, gz bytes.Buffer
	zw, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	gw := gzip.NewWriter(&gz)
	for _, w := range []io.WriteCloser{zw, gw} {
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, blob := range map[string][]byte{"tar": plain, "zstd": zs.Bytes(), "gzip": gz.Bytes()} {
		im := imageOf(t, good())
		im.Factory, err = ReadFactory(bytes.NewReader(tarOf(t, rootFS{"index.json": text("{}"), "blobs/sha256/0123456789abcdef": text(string(blob)), "blobs/sha256/ff": text("{}")})))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r := row(t, Check(im), "private-keys")
		if r.Result != Refused || len(r.Found) != 2 || r.Found[0] != "factory, layer 0123456789ab: /etc/ssl/private/snakeoil.key: a private key (PEM)" {
			t.Errorf("%s: %s, %q", name, r.Result, r.Found)
		}
	}
	if _, err := ReadFactory(bytes.NewReader(tarOf(t, rootFS{"blobs/sha256/aa": text(string(zs.Bytes()[:40]))}))); err == nil {
		t.Error("a layer that is cut off passes")
	}
}

func TestReadRootRefuses(t *testing.T) {
	whole := tarOf(t, good())
	for name, b := range map[string][]byte{"cut": whole[:len(whole)/3], "no tar": bytes.Repeat([]byte("x"), 1024)} {
		if _, err := ReadRoot(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// Names that climb stay inside.
	root, err := ReadRoot(bytes.NewReader(tarOf(t, rootFS{"../../etc/machine-id": text("id"), "a": link("../../../etc/machine-id"), "loop": link("loop")})))
	if err != nil || root.resolve("a") != "etc/machine-id" || root.resolve("loop") != "" {
		t.Errorf("%v, %q, %q", err, root.resolve("a"), root.resolve("loop"))
	}
}

func TestFoundIsBounded(t *testing.T) {
	files := good()
	for i := range 30 {
		files["var/log/"+strings.Repeat("x", i+1)+"\x1b[31m"] = text("x")
	}
	r := row(t, Check(imageOf(t, files)), "logs")
	if len(r.Found) != MaxFound || r.More != 10 || strings.ContainsRune(strings.Join(r.Found, ""), 0x1b) {
		t.Errorf("%d found, %d more, %q", len(r.Found), r.More, r.Found[0])
	}
}

func TestSupportEndsParse(t *testing.T) {
	for name, day := range supportEnds {
		if _, err := time.Parse(time.DateOnly, day); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReadRoot(f *testing.F) {
	f.Add(tarOf(f, rootFS{"etc/shadow": text("root::\n"), "a": link("etc")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		root, err := ReadFactory(bytes.NewReader(b))
		if err != nil {
			return
		}
		Check(Image{Root: root, Factory: root, Boot: &Boot{}, SBOM: b, Now: day})
	})
}

// FuzzFiles puts what is fuzzed into the files that are parsed.
func FuzzFiles(f *testing.F) {
	for _, n := range good() {
		f.Add(n.content, "etc/ssh/sshd_config.d/x.conf")
	}
	f.Fuzz(func(t *testing.T, content, name string) {
		files := good()
		for _, p := range []string{"etc/shadow", "etc/hosts", "usr/lib/systemd/system/ours-sshd.service", "usr/lib/os-release", "usr/lib/sysimage/dpkg/status", "etc/ssh/sshd_config"} {
			files[p] = text(content)
		}
		root, err := ReadRoot(bytes.NewReader(tarOf(t, files)))
		if err != nil {
			t.Fatal(err)
		}
		root.resolve(name)
		boot := goodBoot(t)
		boot.Programs[0].Cmdlines[0] = content
		Check(Image{Root: root, Boot: boot, SBOM: []byte(content), Now: day})
	})
}
