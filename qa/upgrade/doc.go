// SPDX-License-Identifier: Apache-2.0

// Package upgrade makes what tests of upgrades need: releases of the demo that
// are good, or bad in one way each, baked through package builder and signed
// by one vendor's keys; a web server for them that can be slow or break off;
// and a client that looks at a box from outside while it changes.
//
// A program that bakes calls builder/sandbox.Child first, see there.
package upgrade
