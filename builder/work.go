// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"crypto"
	"crypto/x509"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/stack"
	"github.com/holdfast/holdfast/images/initramfs"
)

// work is what the steps of one bake hand each other. Each field is written by
// one step and read by those that need it.
type work struct {
	cfg   Config
	p     Progress
	lock  *lock.Lock
	stack *stack.Stack
	sizes []budget.Size // that the stack fits
	key   crypto.Signer
	cert  *x509.Certificate
	// certPEM is what enters the root as its root of trust.
	certPEM []byte
	add     []entry
	engine  string // the container engine in the root
	// initrdAdd enters the initrd besides dracut's choice.
	initrdAdd []initramfs.File
	tmp       string // the output folder in the making

	debs             *debian.Cache       // set before the first step
	tree             *tools.Tree         // tools
	images           map[string]v1.Image // images, by reference
	rootTar, rootKey string              // rootfs
	kernel, initrd   string              // initrd
	kernelRelease    string              // initrd
	initrdKey        string              // initrd
	seal             sealed              // seal
	uki, bootloader  string              // uki
	ukiKey           string              // uki
	factory          string              // factory
	factoryKey       string              // factory
	release          string              // release, the manifest's digest
	parts            []ManifestPartition // disk
	diskHash         string              // disk
	diskSize         int64               // disk
}

// sealed is the product of the seal step.
type sealed struct {
	// image is the squashfs, tree the dm-verity superblock and tree that
	// follow it in a slot.
	image, tree string
	key         string
	meta        sealMeta
}

// sealMeta is kept beside a sealed root.
type sealMeta struct {
	RootHash string `json:"root_hash"`
	// HashOffset is the squashfs's size, where the hash tree's superblock
	// lies; Bytes is the size of both.
	HashOffset int64  `json:"hash_offset"`
	Bytes      int64  `json:"bytes"`
	OSVersion  string `json:"os_version"`
	// Salt and UUID of the hash tree, in hex.
	Salt string `json:"salt"`
	UUID string `json:"uuid"`
}
