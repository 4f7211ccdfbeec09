// SPDX-License-Identifier: Apache-2.0

// Package engine tests the supervisor against a real Docker engine, made by
// qa/dockerd. It needs root and a tree with Debian 13's docker.io, named by
// HOLDFAST_TOOLS ("/" uses the host's own, Docker 25 or newer).
package engine
