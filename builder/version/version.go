// SPDX-License-Identifier: Apache-2.0

// Package version holds the one number of Holdfast's vendor tools: the Packer
// plugin, the command line and what a lock records as its writer.
package version

// Version is a release, never "-dev": Packer would go online to look for a
// release of a plugin whose version is a pre-release.
const Version = "0.1.0"
