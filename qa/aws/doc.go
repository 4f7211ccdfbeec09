// SPDX-License-Identifier: Apache-2.0

// Package aws holds uploads against Amazon's own description of its services.
// A proxy stands between the upload and moto's server, which both come over
// real HTTP: it checks every request against the service model that Amazon
// publishes (operation, members, types, bounds), records it, and adds what
// moto leaves out: client tokens, parents, checksums, states that take their
// time, and faults. moto and the models come from the tools tree. It says
// nothing about what AWS does beyond its reference; docs/results has the list
// of what only AWS can confirm.
package aws
