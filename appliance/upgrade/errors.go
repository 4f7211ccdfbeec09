// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"strings"
)

// ErrChanged is given by Box.SaveRecord where somebody else has changed the
// record; nothing was written, and what is to be done is decided anew.
var ErrChanged = errors.New("the generation record was changed meanwhile")

// Codes of refusals: a contract, each has its line in docs/upgrade.md.
const (
	CodeBusy        = "busy"            // something else is on its way
	CodeTrust       = "not-trusted"     // what the source says was not verified
	CodeNoSource    = "no-source"       // nothing says where to look
	CodeNotFound    = "not-found"       // the source has no such release
	CodeCurrent     = "current"         // it runs already
	CodeName        = "other-name"      // another product's release
	CodeOlder       = "older"           // an older version than the committed one
	CodeEpoch       = "epoch"           // a security epoch below the box's
	CodeMinFrom     = "min-from"        // the box's version is too old for it
	CodeQuarantined = "quarantined"     // it has failed here before
	CodeMemory      = "memory"          // the machine has too little
	CodeCPUs        = "cpus"            //
	CodeDataRoom    = "data-room"       // the volume of data is too small
	CodeStateRoom   = "state-room"      // no room for releases and images
	CodePoolRoom    = "pool-room"       // no room for the trial's snapshot
	CodeSlotRoom    = "slot-room"       // the root image is larger than the slot
	CodeESPRoom     = "esp-room"        // no room for the kernel image
	CodeConfig      = "config"          // the box's configuration does not go with it
	CodeParts       = "not-installable" // the release lacks what a running box needs
	CodeUnhealthy   = "unhealthy"       // the stack is not healthy now
	CodeNothingKept = "nothing-kept"    // there is no generation to go back to
	CodeKeep        = "keep"            // what --keep keeps would have to go
	CodeData        = "data"            // the data cannot be read by what is gone back to
	CodeHeld        = "held"            // the box holds
	CodeKeys        = "firmware-key"    // the firmware does not know who signed it
	CodeWindow      = "window"          // the window can't be read
)

// Refused is why something is not begun: nothing on the box was changed.
type Refused struct {
	// Code is one of the Code… constants.
	Code string `json:"code"`
	// Why is one sentence; Remedy is what to do, never empty.
	Why    string `json:"why"`
	Remedy string `json:"remedy"`
}

func (r *Refused) Error() string { return r.Why + "; " + r.Remedy }

// RefusedAll is several refusals at once.
type RefusedAll []Refused

func (l RefusedAll) Error() string {
	var all []string
	for _, r := range l {
		all = append(all, r.Error())
	}
	return strings.Join(all, "\n")
}

// Unwrap gives each, for errors.As.
func (l RefusedAll) Unwrap() []error {
	var all []error
	for i := range l {
		all = append(all, &l[i])
	}
	return all
}

// Unreachable is a source that did not answer; another try may mend it.
type Unreachable struct {
	Ref string
	Err error
}

func (e *Unreachable) Error() string { return "cannot reach " + e.Ref + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *Unreachable) Unwrap() error { return e.Err }
