// SPDX-License-Identifier: Apache-2.0

// Package tuf is the part of go-tuf v2 that compose/trust uses, under go-tuf's
// own names: metadata of the four top-level roles, signatures of ed25519 keys,
// and the order in which a client takes metadata over.
//
// With the build tag gotuf the names are go-tuf's own. Without it they are the
// same, for ed25519 and without delegations, from the standard library: that
// is what is built until go.sum has the modules that go-tuf needs. Both write
// the same bytes; the tests of compose/trust run with either.
package tuf
