// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
)

// rounds bounds how often Storage observes: claim, resize, pool, volumes, and
// one to see that nothing is left. More means the tools do not do as told.
const rounds = 6

// Storage brings the state partition of the root's own disk to its shape:
// group, pool and volumes made, grown, active and formatted. On a box that is
// already so it only activates them. Errors are one sentence for the console.
func Storage(ctx context.Context, env Env) error {
	last := ""
	for range rounds {
		d, err := observeDisk(ctx, env)
		if err != nil {
			return err
		}
		steps, err := PlanStorage(d)
		if err != nil {
			return err
		}
		if len(steps) == 0 {
			return nil
		}
		if err := env.act(ctx, steps); err != nil {
			return fmt.Errorf("state is not ready: %w", err)
		}
		last = steps[len(steps)-1].String()
	}
	return fmt.Errorf("state does not come to rest after %d rounds, the last step was %q; send the journal of holdfast-storage.service to the vendor", rounds, last)
}

func observeDisk(ctx context.Context, env Env) (Disk, error) {
	root, err := slot.Running(env.Root)
	if err != nil {
		return Disk{}, err
	}
	part, err := root.Sibling(env.Root, "state")
	if err != nil {
		return Disk{}, err
	}
	if part == "" {
		return Disk{}, fmt.Errorf("disk %s has no state partition and systemd-repart could not make one: it needs 1 GiB of free room; give the machine a larger disk and boot again", root.Disk)
	}
	d := Disk{Name: "/dev/" + part}
	if d.Bytes, err = sectors(env, part); err != nil {
		return Disk{}, err
	}
	if d.Holds, err = holds(ctx, env, d.Name); err != nil {
		return Disk{}, err
	}
	if d.Holds != "LVM2_member" {
		return d, nil
	}
	err = observeGroup(ctx, env, &d)
	return d, err
}

// sectors reads a partition's size; sysfs counts 512-byte sectors always.
func sectors(env Env, part string) (int64, error) {
	name := env.path(filepath.Join("sys/class/block", part, "size"))
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil || n < 0 || n > 1<<53 {
		return 0, fmt.Errorf("%s: %q is not a size in sectors", name, data)
	}
	return n * 512, nil
}

// holds says what is on a device, "" for nothing.
func holds(ctx context.Context, env Env, dev string) (string, error) {
	found, err := probe(ctx, env, dev)
	if failed, ok := errors.AsType[*CommandError](err); ok && failed.Code == 8 {
		return "two things at once", nil
	} else if err != nil {
		return "", err
	}
	return cmp.Or(found["TYPE"], found["PTTYPE"]), nil
}

// probe asks blkid about a device. Its code 2 means that it found nothing, 8
// that what it found contradicts itself.
func probe(ctx context.Context, env Env, dev string) (map[string]string, error) {
	out, err := env.run(ctx, "blkid", "--probe", "--output", "export", dev)
	if failed, ok := errors.AsType[*CommandError](err); ok && failed.Code == 2 {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for line := range strings.SplitSeq(string(out), "\n") {
		if key, value, ok := strings.Cut(line, "="); ok {
			found[key] = value
		}
	}
	return found, nil
}

// lvmReport is the shape of lvm's --reportformat json: numbers come as text.
type lvmReport struct {
	Report []map[string][]map[string]string `json:"report"`
}

// maxReport bounds lvm's answer in bytes.
const maxReport = 4 << 20

func report(ctx context.Context, env Env, dev, verb, kind, fields string, args ...string) ([]map[string]string, error) {
	argv := append([]string{"lvm", verb, "--devices", dev, "--reportformat", "json", "--units", "b", "--nosuffix", "--options", fields}, args...)
	out, err := env.run(ctx, argv...)
	if err != nil {
		return nil, err
	}
	if len(out) > maxReport {
		return nil, fmt.Errorf("%s: more than %d bytes of answer", strings.Join(argv, " "), maxReport)
	}
	var r lvmReport
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	var rows []map[string]string
	for _, part := range r.Report {
		rows = append(rows, part[kind]...)
	}
	return rows, nil
}

func observeGroup(ctx context.Context, env Env, d *Disk) error {
	pvs, err := report(ctx, env, d.Name, "pvs", "pv", "vg_name,pv_size,dev_size,pe_start", d.Name)
	if err != nil {
		return err
	}
	if len(pvs) != 1 {
		return fmt.Errorf("lvm knows %d physical volumes on %s, want 1; check the disk", len(pvs), d.Name)
	}
	d.Group = pvs[0]["vg_name"]
	if d.Group != group {
		return nil
	}
	vgs, err := report(ctx, env, d.Name, "vgs", "vg", "vg_size,vg_free,vg_extent_size", group)
	if err != nil {
		return err
	}
	if len(vgs) != 1 {
		return fmt.Errorf("lvm knows %d groups %s, want 1", len(vgs), group)
	}
	n := numbers{row: vgs[0]}
	d.Total, d.Free, d.Extent = n.get("vg_size"), n.get("vg_free"), n.get("vg_extent_size")
	// LVM rounds the partition down to whole extents after its own header.
	p := numbers{row: pvs[0]}
	d.Known = p.get("pv_size") + p.get("pe_start")
	if err := errors.Join(n.err, p.err); err != nil {
		return err
	}
	if d.Extent <= 0 {
		return fmt.Errorf("group %s has extents of %d bytes", group, d.Extent)
	}
	return observeVolumes(ctx, env, d)
}

func observeVolumes(ctx context.Context, env Env, d *Disk) error {
	lvs, err := report(ctx, env, d.Name, "lvs", "lv", "lv_name,lv_size,lv_tags,lv_active,lv_metadata_size", group)
	if err != nil {
		return err
	}
	for _, row := range lvs {
		n := numbers{row: row}
		v := Volume{
			Name:      row["lv_name"],
			Bytes:     n.get("lv_size"),
			Active:    row["lv_active"] == "active",
			Formatted: hasTag(row["lv_tags"], formatted),
		}
		if row["lv_metadata_size"] != "" {
			v.Metadata = n.get("lv_metadata_size")
		}
		if n.err != nil {
			return n.err
		}
		d.Volumes = append(d.Volumes, v)
	}
	return nil
}

func hasTag(tags, want string) bool {
	for tag := range strings.SplitSeq(tags, ",") {
		if tag == want {
			return true
		}
	}
	return false
}

// numbers reads fields of one report row and keeps the first error.
type numbers struct {
	row map[string]string
	err error
}

func (n *numbers) get(field string) int64 {
	v, err := strconv.ParseInt(n.row[field], 10, 64)
	if (err != nil || v < 0) && n.err == nil {
		n.err = fmt.Errorf("lvm says %s=%q, want a number of bytes", field, n.row[field])
	}
	return v
}
