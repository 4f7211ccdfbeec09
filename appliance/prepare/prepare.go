// SPDX-License-Identifier: Apache-2.0

// Package prepare brings all of a release to the box while the old one serves:
// root and kernel image by chunks into the other slot and a file, the stack's
// images by blobs into a store, the rest into the release's folder. What a
// release consists of follows from its manifest, whose digest the caller has
// verified; every byte is held against that, and lies under an unverified name
// until it is. It starts nothing and places nothing on the ESP.
//
// An interrupted run is gone on with by running it again: what is on the box
// and right is not fetched twice.
package prepare

import (
	"time"
)

// Request says what to bring from where. It goes to the child process as JSON.
type Request struct {
	// Ref is the place, as compose/depot takes it.
	Ref string `json:"ref"`
	// Digest of the release manifest, "sha256:<hex>", and its length in bytes,
	// both verified by the caller.
	Digest       string `json:"digest"`
	ManifestSize int64  `json:"manifest_size"`
	// State is the folder on state, "/var/lib/holdfast".
	State string `json:"state"`

	// Target is the device of the slot that is written; "" where the running
	// root is the release's and only the stack comes. Nothing may name that
	// slot any more: from the first write on it holds no root.
	Target string `json:"target,omitempty"`
	// Running is the device of the running slot, "" where nothing is taken
	// from it.
	Running string `json:"running,omitempty"`
	// RunningDigest is the manifest digest of the running release, whose
	// folder may have its chunk index and kernel image; "" is the factory's.
	RunningDigest string `json:"running_digest,omitempty"`
	// UKIs are kernel image files on the box whose chunks may be taken; those
	// that are not there are passed by.
	UKIs []string `json:"ukis,omitempty"`
	// Layouts are OCI layout folders whose blobs are used where they lie: the
	// factory's.
	Layouts []string `json:"layouts,omitempty"`
	// Contents are OCI layout folders whose blobs are copied, because they may
	// go: the content store of an engine.
	Contents []string `json:"contents,omitempty"`

	// ESPFree is the room in bytes on the ESP for the kernel image; 0 is not
	// known.
	ESPFree int64 `json:"esp_free,omitempty"`
	// Reserve is room in bytes that must be left on state when all is there,
	// for the engine's copy of the images and its logs.
	Reserve int64 `json:"reserve,omitempty"`

	// Limit in bytes per second; 0 is none.
	Limit int64 `json:"limit,omitempty"`
	// Proxy of the network; nil is none.
	Proxy *Proxy `json:"proxy,omitempty"`
	// Stick is where the removable disk is mounted for "usb:".
	Stick string `json:"stick,omitempty"`
	// Deadline ends the tries; zero is never.
	Deadline time.Time `json:"deadline,omitzero"`
}

// Proxy is what a box's configuration says about proxies.
type Proxy struct {
	HTTP    string   `json:"http,omitempty"`
	HTTPS   string   `json:"https,omitempty"`
	NoProxy []string `json:"no_proxy,omitempty"`
}

// Progress is how far a run is.
type Progress struct {
	// Step is what is done, for people: "the root image".
	Step string `json:"step"`
	// Done of Total bytes of the release are on the box; Reused of them had
	// not to be fetched, Fetched are what came from the place, with what was
	// fetched in vain.
	Done    int64 `json:"done"`
	Total   int64 `json:"total"`
	Reused  int64 `json:"reused"`
	Fetched int64 `json:"fetched"`
	// Rate is the fetched bytes per second of the last seconds, Left the
	// seconds that the rest takes at the present pace, 0 while unknown.
	Rate int64 `json:"rate,omitempty"`
	Left int64 `json:"left,omitempty"`
	// Waiting is why nothing comes at the moment, "" while it does.
	Waiting string `json:"waiting,omitempty"`
}

// Result is what a run that went well has done.
type Result struct {
	// Folder of the release, "STATE/releases/<hex>": an OCI layout without the
	// stack's images, with the kernel image UKI and systemd-boot Boot as files
	// in it where Target was given.
	Folder string `json:"folder"`
	// Name and Version of the release, and the root hash of its root.
	Name     string `json:"name"`
	Version  string `json:"version"`
	RootHash string `json:"root_hash"`
	UKI      string `json:"uki,omitempty"`
	Boot     string `json:"boot,omitempty"`
	// Fetched and Reused bytes, by part and in all.
	Fetched int64           `json:"fetched"`
	Reused  int64           `json:"reused"`
	Parts   map[string]Part `json:"parts,omitempty"`
}

// Part is what one part of a release took.
type Part struct {
	// Size of the part; Fetched and Reused bytes of it.
	Size    int64 `json:"size"`
	Fetched int64 `json:"fetched"`
	Reused  int64 `json:"reused"`
	// Seconds that it took.
	Seconds float64 `json:"seconds"`
}
