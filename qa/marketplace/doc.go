// SPDX-License-Identifier: Apache-2.0

// Package marketplace holds the examples of docs/marketplace against what a box
// takes: the size profiles, the schema of its configuration, and the rules that
// the page promises. With the tag vm it holds the newest baked image against the
// checks for marketplaces.
package marketplace
