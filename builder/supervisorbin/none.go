// SPDX-License-Identifier: Apache-2.0

//go:build !embed_supervisor

package supervisorbin

var binary []byte
