// SPDX-License-Identifier: Apache-2.0

package trust

import "errors"

// What may be wrong with metadata; errors.Is tells them apart. The text of an
// error is one sentence that says what is wrong and what to do.
var (
	// ErrSignature: fewer valid signatures than the role's threshold.
	ErrSignature = errors.New("not signed as it must be")
	// ErrUnknownKey: signed, by nobody this box trusts (any more).
	ErrUnknownKey = errors.New("signed by unknown keys")
	// ErrExpired: valid once.
	ErrExpired = errors.New("expired")
	// ErrRollback: older than what was seen before.
	ErrRollback = errors.New("older than what was seen before")
	// ErrMixed: parts that do not belong together.
	ErrMixed = errors.New("parts that do not belong together")
	// ErrDamaged: no metadata, or not in the one form it has.
	ErrDamaged = errors.New("damaged")
	// ErrTooLarge: more bytes, or roots, than are ever read.
	ErrTooLarge = errors.New("too large")
	// ErrMissing: a file that must be there is not.
	ErrMissing = errors.New("missing")
	// ErrUnknownRelease: the metadata does not list the release.
	ErrUnknownRelease = errors.New("release is not listed")
	// ErrNoKey: the vendor's private keys that are needed are not at hand.
	ErrNoKey = errors.New("no private key at hand")
)

// Error is a refusal. Its Kind is one of the errors above.
type Error struct {
	Kind error
	// File that was refused, such as "3.root.json".
	File string
	// Text is the whole sentence.
	Text string
}

func (e *Error) Error() string { return "trust: " + e.Text }

// Is makes errors.Is find the kind.
func (e *Error) Is(target error) bool { return target == e.Kind }

func refuse(kind error, file, text string) error {
	return &Error{Kind: kind, File: file, Text: text}
}
