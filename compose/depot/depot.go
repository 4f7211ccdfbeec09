// SPDX-License-Identifier: Apache-2.0

// Package depot reads releases from where they are kept: a folder (also on a
// USB disk), a bundle file, a web server or an OCI registry. It trusts none of
// them: what it gives is bounded, and verified by whoever asked for it.
//
// A folder and a web server's folder are an OCI layout with the trust metadata
// beside it:
//
//	oci-layout  index.json  blobs/sha256/<hex>
//	tuf/timestamp.json  tuf/<N>.root.json  tuf/<N>.snapshot.json  tuf/<N>.targets.json
//
// A bundle is one tar of that folder, with tuf/targets.json in place of
// timestamp, snapshot and numbered targets. In a registry the blobs are blobs of one
// repository, each release is tagged with its version, and the metadata are the
// layers of the manifest tagged "tuf", each with its file name as
// org.opencontainers.image.title.
package depot

import (
	"context"
	"io"
)

// Depot is one place that releases are kept in. Its methods may be called from
// several goroutines.
type Depot interface {
	// Metadata reads one file of trust metadata ("timestamp.json",
	// "3.root.json") of at most limit bytes; fs.ErrNotExist where there is
	// none.
	Metadata(ctx context.Context, name string, limit int64) ([]byte, error)
	// Blob opens length bytes of a blob from offset on. The reader gives at
	// most that many. Errors that another try may mend are *Transient.
	Blob(ctx context.Context, digest string, offset, length int64) (io.ReadCloser, error)
	// Offline is true for a bundle: it has no timestamp role.
	Offline() bool
	// String is the place as an admin writes it.
	String() string
	Close() error
}

// Transient is an error that another try may mend.
type Transient struct{ Err error }

func (e *Transient) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Transient) Unwrap() error { return e.Err }
