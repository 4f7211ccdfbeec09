// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// Bounds of private keys and of what an external signer may take.
const (
	maxKeyFile   = 64 << 10
	SignerPeriod = time.Minute
)

// EnvKey is the environment variable that may hold a role's private key, as
// PEM or as base64 of PEM. It may hold several.
func EnvKey(role string) string { return "HOLDFAST_KEY_" + strings.ToUpper(role) }

// Keyring finds the private keys to sign with: in files, in the environment,
// and with an external command that keeps them.
type Keyring struct {
	// Dir has private keys as PKCS#8 PEM without a passphrase, *.pem, each of
	// mode 0600; missing or "" for none.
	Dir string
	// Env reads the environment; nil for none.
	Env func(string) string
	// Command signs in our place; nil for none. It gets the bytes to sign on
	// standard input, HOLDFAST_ROLE and HOLDFAST_KEY_ID (64 hex digits) in its
	// environment, and writes the raw signature of 64 bytes to standard
	// output. Exit code 3 says that it does not have this key. It has
	// SignerPeriod, or Period if that is set.
	Command []string
	Period  time.Duration

	loaded bool
	files  map[string]ed25519.PrivateKey
}

// sign signs with one key of a role; ok is false where the key is not at hand.
func (k *Keyring) sign(ctx context.Context, role, id string, public *tuf.Key, payload []byte) (sig []byte, ok bool, err error) {
	key, err := k.find(role, id)
	if err != nil {
		return nil, false, err
	}
	if key != nil {
		return ed25519.Sign(key, payload), true, nil
	}
	if len(k.Command) == 0 {
		return nil, false, nil
	}
	sig, ok, err = k.external(ctx, role, id, payload)
	if err != nil || !ok {
		return nil, false, err
	}
	if !validSignature(public, payload, sig) {
		return nil, false, fmt.Errorf("trust: the signer %s gave a signature that the key %s of %s did not make: make it use that key, or end with exit code 3", k.Command[0], short(id), role)
	}
	return sig, true, nil
}

// find looks for a private key in files and environment.
func (k *Keyring) find(role, id string) (ed25519.PrivateKey, error) {
	if !k.loaded {
		if err := k.load(); err != nil {
			return nil, err
		}
	}
	if key := k.files[id]; key != nil {
		return key, nil
	}
	if k.Env == nil || k.Env(EnvKey(role)) == "" {
		return nil, nil
	}
	text := strings.TrimSpace(k.Env(EnvKey(role)))
	if !strings.HasPrefix(text, "-----") {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("trust: %s is neither PEM nor base64 of PEM: set it to the content of a private key's file", EnvKey(role))
		}
		text = string(b)
	}
	keys, err := parseKeys([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("trust: %s: %w", EnvKey(role), err)
	}
	for _, key := range keys {
		if KeyID(key.Public().(ed25519.PublicKey)) == id {
			return key, nil
		}
	}
	return nil, nil
}

func (k *Keyring) load() error {
	k.files, k.loaded = map[string]ed25519.PrivateKey{}, true
	if k.Dir == "" {
		return nil
	}
	paths, err := filepath.Glob(filepath.Join(k.Dir, "*.pem"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			return fmt.Errorf("trust: the private key %s may be read by others (mode %04o): run chmod 600 on it, and replace the key if others had it", path, info.Mode().Perm())
		}
		text, err := readBounded(os.DirFS(k.Dir), filepath.Base(path), maxKeyFile)
		if err != nil {
			return err
		}
		keys, err := parseKeys(text)
		if err != nil {
			return fmt.Errorf("trust: %s: %w", path, err)
		}
		for _, key := range keys {
			k.files[KeyID(key.Public().(ed25519.PublicKey))] = key
		}
	}
	return nil
}

// KeyID is the TUF key id of a public key, 64 hex digits.
func KeyID(public ed25519.PublicKey) string {
	id, err := tuf.Ed25519Key(hex.EncodeToString(public)).ID()
	if err != nil {
		panic(err) // three strings always encode
	}
	return id
}

// NewKey makes a private key and its file's content.
func NewKey() (ed25519.PublicKey, []byte, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return public, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// parseKeys reads private keys, PKCS#8 PEM of ed25519, one after the other.
func parseKeys(text []byte) ([]ed25519.PrivateKey, error) {
	var keys []ed25519.PrivateKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "PRIVATE KEY" {
			return nil, fmt.Errorf("it holds %q, not an unencrypted PKCS#8 PRIVATE KEY: make one with holdfast-release keys, or openssl genpkey -algorithm ed25519", block.Type)
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("it holds no private key: %w", err)
		}
		private, ok := key.(ed25519.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("it holds a key of another kind than ed25519: make one with openssl genpkey -algorithm ed25519")
		}
		keys = append(keys, private)
	}
	if keys == nil {
		return nil, errors.New("it holds no PEM: give an unencrypted PKCS#8 private key")
	}
	return keys, nil
}

// ReadPublicKey reads a public key that lives elsewhere, PEM as
// `openssl pkey -pubout` writes it.
func ReadPublicKey(path string) (ed25519.PublicKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%s holds no PEM PUBLIC KEY: write one with openssl pkey -pubout", path)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key of another kind than ed25519", path)
	}
	return public, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
