// SPDX-License-Identifier: Apache-2.0

// Package bake checks whole bakes as a vendor runs them: the packer command
// with our plugin, in the checkout. Its tests have the build tag bake, need
// root and the products of `make lock`, and ask no network: packages come from
// an archive of the lock that they export first. They show that two bakes are
// bit-identical, that an interrupted one leaves nothing but a usable cache,
// and that each bad input gets one clear error.
package bake
