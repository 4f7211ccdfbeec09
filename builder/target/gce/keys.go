// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"encoding/base64"
	"errors"
	"fmt"

	"google.golang.org/api/compute/v1"

	"github.com/holdfast/holdfast/images/uefivars"
)

// FileContent is one certificate or list.
type FileContent struct {
	Content []byte
	// Type is "X509" for a certificate in DER, "BIN" for EFI signature lists.
	Type string
}

// KeySet is the Secure Boot key set of machines made of the image.
type KeySet struct {
	PK              FileContent
	KEKs, DBs, DBXs []FileContent
}

// Keys is the key set of a disk in the form Google takes.
func Keys(k uefivars.KeySet) *KeySet {
	s := &KeySet{PK: FileContent{k.PK.Raw, "X509"}}
	for _, c := range k.KEK {
		s.KEKs = append(s.KEKs, FileContent{c.Raw, "X509"})
	}
	for _, c := range k.DB {
		s.DBs = append(s.DBs, FileContent{c.Raw, "X509"})
	}
	for _, r := range k.DBX {
		s.DBXs = append(s.DBXs, FileContent{r.File, "BIN"})
	}
	return s
}

func (k *KeySet) check() error {
	if len(k.PK.Content) == 0 || len(k.KEKs) == 0 || len(k.DBs) == 0 {
		return errors.New("a key set has one PK, and at least one KEK and one db; without one Google's own keys are used")
	}
	for _, c := range append(append(append([]FileContent{k.PK}, k.KEKs...), k.DBs...), k.DBXs...) {
		if len(c.Content) == 0 || c.Type != "X509" && c.Type != "BIN" {
			return fmt.Errorf("a key of %d bytes and type %q: it must have content, and be X509 or BIN", len(c.Content), c.Type)
		}
	}
	return nil
}

// state is nil without a key set: an empty one would wipe Google's keys.
func (k *KeySet) state() *compute.InitialStateConfig {
	if k == nil {
		return nil
	}
	buffers := func(files []FileContent) (b []*compute.FileContentBuffer) {
		for _, f := range files {
			b = append(b, &compute.FileContentBuffer{Content: base64.StdEncoding.EncodeToString(f.Content), FileType: f.Type})
		}
		return b
	}
	return &compute.InitialStateConfig{
		Pk: buffers([]FileContent{k.PK})[0], Keks: buffers(k.KEKs), Dbs: buffers(k.DBs), Dbxs: buffers(k.DBXs),
	}
}
