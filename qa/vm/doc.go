// SPDX-License-Identifier: Apache-2.0

// Package vm boots a baked disk in QEMU and lets tests watch and question it:
// the serial console, the machine protocol (QMP) and a root shell that only
// the test's machine offers. Its inputs are an output folder of a bake and a
// tools tree; it never changes the folder: each machine writes to an overlay
// of its own in a temporary folder.
//
// Nothing here waits by the clock alone: each wait is for an event and ends
// with an error that names the event when its context ends. QEMU dies with the
// test, however the test ends.
package vm
