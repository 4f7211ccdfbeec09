// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// minRSA is the least bits of an RSA key for logging in (NIST SP 800-131A).
const minRSA = 2048

// sshTypes are the key types taken: what OpenSSH 10 accepts by default, less
// certificates, whose authority the box would have to be told.
var sshTypes = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519,
	ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256,
	ssh.KeyAlgoRSA,
}

// sshKey is one line of an authorized_keys file (sshd(8)) without options:
// they could run commands and open ports on the box.
func sshKey(v string) (clean, text, mend string) {
	const mend1 = "paste the one line of a .pub file, such as `ssh-ed25519 AAAA... you@example.com`"
	v = strings.TrimSpace(v)
	if strings.Contains(v, "PRIVATE KEY") {
		return "", "this is a private key, which others may have read by now", "make a new pair with ssh-keygen and put only its .pub file here"
	}
	for _, r := range v {
		if r < ' ' || r == 0x7f {
			return "", "the key holds a line end or another control character", mend1
		}
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(v))
	if err != nil || len(rest) > 0 || strings.HasPrefix(v, "#") {
		return "", quote(v) + " is no ssh public key", mend1
	}
	if len(options) > 0 {
		return "", fmt.Sprintf("options (%s) stand before the key", quote(options[0])), "remove everything before the key's type"
	}
	if !slices.Contains(sshTypes, key.Type()) {
		return "", "keys of the type " + key.Type() + " are not taken", "make one with `ssh-keygen -t ed25519`"
	}
	if bits := rsaBits(key); bits > 0 && bits < minRSA {
		return "", fmt.Sprintf("an RSA key of %d bits is too short", bits), "make one with `ssh-keygen -t ed25519`; RSA needs 2048 bits"
	}
	return v, "", ""
}

func rsaBits(key ssh.PublicKey) int {
	c, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return 0
	}
	pub, ok := c.CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return 0
	}
	return pub.N.BitLen()
}

// describeSSHKey is a key as people compare it: type, fingerprint, comment.
func describeSSHKey(line string) string {
	key, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return quote(line)
	}
	return strings.TrimSpace(key.Type() + " " + ssh.FingerprintSHA256(key) + " " + comment)
}

func pemCertificate(v string) (clean, text, mend string) {
	const mend1 = "paste the PEM text, leaf first, indented below `certificate: |`"
	if strings.Contains(v, "PRIVATE KEY") {
		return "", "the certificate holds a private key too", "move the key to `tls.key`"
	}
	rest, certs := []byte(v), 0
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return "", "a block is a " + quote(block.Type) + ", not a CERTIFICATE", mend1
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "", fmt.Sprintf("certificate %d can't be read: %v", certs+1, err), mend1
		}
		certs++
	}
	if certs == 0 {
		return "", "there is no certificate in PEM form in it", mend1
	}
	return v, "", ""
}

// pemKey tells nothing of the value.
func pemKey(v string) (clean, text, mend string) {
	const mend1 = "paste the PEM text of the key indented below `key: |`, without a passphrase (openssl pkey -in key.pem -out plain.pem)"
	block, rest := pem.Decode([]byte(v))
	switch {
	case block == nil:
		return "", "there is no private key in PEM form in it", mend1
	case strings.Contains(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "":
		return "", "the key has a passphrase", mend1
	// openssl puts the curve in a block of its own before an EC key.
	case !strings.HasSuffix(block.Type, "PRIVATE KEY") && block.Type != "EC PARAMETERS":
		return "", "the block is no private key", mend1
	case strings.Contains(string(rest), "CERTIFICATE"):
		return "", "a certificate stands behind the key", "move it to `tls.certificate`"
	}
	return v, "", ""
}

// tlsPair holds certificate and key against each other.
func tlsPair(p *parser, m *mapped) {
	certificate, key := m.text("certificate"), m.text("key")
	switch {
	case certificate == "" && key == "":
		return
	case key == "":
		p.bad(m.line("certificate"), m.path("key"), "the certificate has no key", "add `key`, or remove `certificate`")
		return
	case certificate == "":
		p.bad(m.line("key"), m.path("certificate"), "the key has no certificate", "add `certificate`, or remove `key`")
		return
	}
	if _, err := tls.X509KeyPair([]byte(certificate), []byte(key)); err != nil {
		text := strings.ReplaceAll(err.Error(), "tls: ", "")
		p.bad(m.line("key"), m.path("key"), "certificate and key are no pair: "+text, "use the key the certificate was made for, with the leaf certificate first")
	}
}

// leaf is the first certificate, nil where there is none.
func leaf(certificate string) *x509.Certificate {
	block, _ := pem.Decode([]byte(certificate))
	if block == nil {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return c
}

func describeCertificate(certificate string) string {
	c := leaf(certificate)
	if c == nil {
		return ""
	}
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = []string{c.Subject.CommonName}
	}
	return "for " + commas(names) + ", until " + c.NotAfter.UTC().Format(time.DateOnly)
}

// Warnings are what is wrong with c at a time without being a reason to refuse
// it: a clock may be wrong, and an old certificate is better than none.
func (c Config) Warnings(now time.Time) []Problem {
	l := leaf(c.TLS.Certificate)
	if l == nil {
		return nil
	}
	p := Problem{Key: "tls.certificate", Mend: "put a new certificate and its key into the configuration and reboot"}
	switch {
	case now.After(l.NotAfter):
		p.Text = "the certificate has expired on " + l.NotAfter.UTC().Format(time.DateOnly)
	case now.Before(l.NotBefore):
		p.Text = "the certificate counts only from " + l.NotBefore.UTC().Format(time.DateOnly) + ", and the clock says " + now.UTC().Format(time.DateOnly)
	default:
		return nil
	}
	return []Problem{p}
}
