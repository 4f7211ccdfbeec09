// SPDX-License-Identifier: Apache-2.0

// Package ova makes a baked disk into an OVA beside it: a file that vSphere,
// ESXi, VirtualBox and Proxmox import. It uploads nothing and changes nothing
// else in the output folder.
package ova

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/images/ova"
	"github.com/holdfast/holdfast/images/ovf"
	"github.com/holdfast/holdfast/images/vmdk"
)

const mib = int64(1) << 20

// Progress hears what happens; it may be called from several goroutines.
type Progress interface {
	Say(format string, args ...any)
	Warn(format string, args ...any)
}

// Result is what was made.
type Result struct {
	// Path of the OVA; its record lies beside it.
	Path   string
	Record target.Record
	// Unchanged is true when it was there already.
	Unchanged bool
	// Machine is what an importer makes of it.
	Machine Machine
}

// Machine is the machine in an OVA.
type Machine struct {
	Name            string
	CPUs, MemoryMiB int
	DiskBytes       int64
	SecureBoot      bool
}

// Make makes the OVA of the output folder dir, unless it is there already, made
// of the same disk with the same options. Where it fails, what was there before
// is as it was.
func Make(ctx context.Context, dir string, o Options, p Progress) (*Result, error) {
	d, err := target.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	r, err := o.resolve(d.Manifest.Name, d.Manifest.Version, d.Manifest.Sizes)
	if err != nil {
		return nil, err
	}
	if r.ovf.Capacity, err = r.capacity(d); err != nil {
		return nil, err
	}
	if r.ovf.Capacity > vmdk.MaxCapacity {
		return nil, fmt.Errorf("disk_size: %s is more than the 62 TiB that vSphere allows", show.Bytes(r.ovf.Capacity))
	}
	r.ovf.ID = d.SHA256()
	if r.ovf.SecureBoot {
		p.Warn("secure_boot: hypervisors trust Microsoft's keys, so the machine starts only where the certificate of this disk was enrolled (docs/secure-boot.md)")
	}
	spec := target.Spec{Target: "ova", Name: r.file, DiskBytes: r.ovf.Capacity, Options: r.inputs()}
	meter := target.NewMeter(spec.Name, p.Say)
	result := &Result{
		Path:    filepath.Join(d.Dir, spec.Name),
		Machine: Machine{Name: r.ovf.Name, CPUs: r.ovf.CPUs, MemoryMiB: r.ovf.MemoryMiB, DiskBytes: r.ovf.Capacity, SecureBoot: r.ovf.SecureBoot},
	}
	result.Record, result.Unchanged, err = d.Make(ctx, spec, func(ctx context.Context, f *os.File) error {
		return r.write(ctx, f, d, meter)
	})
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", result.Path, err)
	}
	return result, nil
}

// inputs are all that decides the bytes beside the disk.
func (r *resolved) inputs() any {
	in := struct {
		Encoders    [3]int
		Machine     ovf.Options
		Certificate string
	}{Encoders: [3]int{vmdk.Version, ovf.Version, ova.Version}, Machine: r.ovf}
	if r.signer != nil {
		h := sha256.Sum256(r.signer.Certificate.Raw)
		in.Certificate = hex.EncodeToString(h[:])
	}
	return in
}

// write writes the disk straight to its place in f, and then what describes it.
func (r *resolved) write(ctx context.Context, f *os.File, d *target.Disk, meter *target.Meter) error {
	o := r.ovf
	o.Populated = o.Capacity // until the disk is written: the most it can be
	_, err := ova.Write(ctx, f, ova.Package{
		Name: r.base(), Signer: r.signer,
		Disk: func(ctx context.Context, w io.WriterAt) (int64, error) {
			res, err := vmdk.Encode(ctx, w, d.File, d.Size, d.Runs, vmdk.Options{
				Capacity: o.Capacity, Name: o.DiskFile, Progress: meter.Progress,
			})
			o.Populated = res.Populated
			return res.Size, err
		},
		Envelope: func(size int64) ([]byte, error) {
			o.DiskSize = size
			return ovf.Marshal(o)
		},
	})
	return err
}
