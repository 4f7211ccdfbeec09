// SPDX-License-Identifier: Apache-2.0

// Package script holds sessions of the vendor's command lines, as a person
// types them, against the programs that `make setup` built. Its tests have the
// build tag bake and ask no network; each session in testdata is a testscript.
package script
