// SPDX-License-Identifier: Apache-2.0

// Package fidelity holds our containers, networks and volumes against those of
// docker compose itself: the same Compose file, created by both on one engine,
// must look the same to `docker inspect`. What may differ is a short list
// (Intended), each with its reason.
//
// Each testdata/*.yaml is one case; testdata/files lies beside every one of
// them. The tests need root, the tree of qa/dockerd, and the program
// build/peers/docker-compose that `make peers` builds (HOLDFAST_PEERS).
package fidelity

//go:generate go test -run TestPage -update .
