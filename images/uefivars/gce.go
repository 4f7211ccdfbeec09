// SPDX-License-Identifier: Apache-2.0

package uefivars

import (
	"crypto/x509"
	"encoding/base64"
)

// File types of a Buffer.
const (
	GCEX509 = "X509"
	GCEBin  = "BIN"
)

// Buffer is FileContentBuffer of Google's Compute Engine API v1.
type Buffer struct {
	// Content is base64 of the file, FileType "X509" (DER) or "BIN".
	Content  string `json:"content"`
	FileType string `json:"fileType"`
}

// GCE is InitialStateConfig of Google's Compute Engine API v1, what
// images.insert takes as shieldedInstanceInitialState. Send it whole or not at
// all: an empty one wipes the keys an image would inherit.
type GCE struct {
	PK   *Buffer  `json:"pk"`
	KEKs []Buffer `json:"keks"`
	DBs  []Buffer `json:"dbs"`
	DBXs []Buffer `json:"dbxs,omitempty"`
}

// GCE gives certificates as X509, and dbx files just as they were given as BIN.
func (k KeySet) GCE() (*GCE, error) {
	if err := k.Check(); err != nil {
		return nil, err
	}
	pk := x509Buffers(k.PK)
	g := &GCE{PK: &pk[0], KEKs: x509Buffers(k.KEK...), DBs: x509Buffers(k.DB...)}
	for _, r := range k.DBX {
		g.DBXs = append(g.DBXs, Buffer{base64.StdEncoding.EncodeToString(r.File), GCEBin})
	}
	return g, nil
}

func x509Buffers(certs ...*x509.Certificate) []Buffer {
	out := make([]Buffer, len(certs))
	for i, c := range certs {
		out[i] = Buffer{base64.StdEncoding.EncodeToString(c.Raw), GCEX509}
	}
	return out
}
