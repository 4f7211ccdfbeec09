// SPDX-License-Identifier: Apache-2.0

// Package sourcegraph tests the stack in compose/stacks/sourcegraph: what it
// says against the published deployment that it follows (testdata/public), its
// budgets against the machines it names, and, with the build tag engine, the
// whole of it running with stand-ins for its images. It needs no registry.
package sourcegraph
