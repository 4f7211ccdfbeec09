// SPDX-License-Identifier: Apache-2.0

// Package attack tries what attackers and bad luck do to a release on its way:
// from a depot through trust to the box's slot and state, with the same code
// as on a box and a folder standing for one. It holds that whatever is not the
// vendor's bytes is refused with one sentence that says which, and that a
// refusal changes nothing: what was on the box is as it was, what is new is
// under an unverified name or is verified by its own digest.
package attack
