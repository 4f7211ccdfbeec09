// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// lvmMember is blkid's word for a physical volume.
const lvmMember = "LVM2_member"

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
	return lines(out), nil
}

// lines reads KEY=VALUE lines.
func lines(out []byte) map[string]string {
	found := map[string]string{}
	for line := range strings.SplitSeq(string(out), "\n") {
		if key, value, ok := strings.Cut(line, "="); ok {
			found[key] = value
		}
	}
	return found
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

// observeGroup fills in what LVM says of a physical volume. It only reads: no
// volume is activated.
func observeGroup(ctx context.Context, env Env, d *Device, want string) error {
	pvs, err := report(ctx, env, d.Name, "pvs", "pv", "vg_name,pv_uuid,pv_in_use,pv_size,dev_size,pe_start", d.Name)
	if err != nil {
		return err
	}
	if len(pvs) != 1 {
		return fmt.Errorf("lvm knows %d physical volumes on %s, want 1; check the disk", len(pvs), d.Name)
	}
	d.PV, d.Owner = pvs[0]["pv_uuid"], pvs[0]["vg_name"]
	if d.Owner == "" && pvs[0]["pv_in_use"] != "" {
		d.Owner = "[unknown]" // LVM's own word for a group whose metadata is on another disk
	}
	if d.Owner != want {
		return nil
	}
	vgs, err := report(ctx, env, d.Name, "vgs", "vg", "vg_uuid,vg_tags,vg_exported,vg_missing_pv_count,pv_count,vg_size,vg_free,vg_extent_size", want)
	if err != nil {
		return err
	}
	if len(vgs) != 1 {
		return fmt.Errorf("lvm knows %d groups %s, want 1", len(vgs), want)
	}
	g := &Group{Dev: d.Name, Bytes: d.Bytes, Name: want, ID: vgs[0]["vg_uuid"], Tags: splitTags(vgs[0]["vg_tags"])}
	n := numbers{row: vgs[0]}
	g.Total, g.Free, g.Extent = n.get("vg_size"), n.get("vg_free"), n.get("vg_extent_size")
	switch {
	case vgs[0]["vg_exported"] != "":
		g.Broken = "it was exported (vgexport)"
	case n.get("pv_count") != 1 || n.get("vg_missing_pv_count") != 0:
		g.Broken = "parts of it lie on another disk"
	}
	// LVM rounds the device down to whole extents after its own header.
	p := numbers{row: pvs[0]}
	g.Known = p.get("pv_size") + p.get("pe_start")
	if err := errors.Join(n.err, p.err); err != nil {
		return err
	}
	if g.Extent <= 0 {
		return fmt.Errorf("group %s has extents of %d bytes", want, g.Extent)
	}
	d.Group = g
	return observeVolumes(ctx, env, g)
}

// readTags reads the tags of a group anew.
func readTags(ctx context.Context, env Env, dev, name string) ([]string, error) {
	vgs, err := report(ctx, env, dev, "vgs", "vg", "vg_tags", name)
	if err != nil {
		return nil, err
	}
	if len(vgs) != 1 {
		return nil, fmt.Errorf("lvm knows %d groups %s on %s, want 1", len(vgs), name, dev)
	}
	return splitTags(vgs[0]["vg_tags"]), nil
}

func observeVolumes(ctx context.Context, env Env, g *Group) error {
	lvs, err := report(ctx, env, g.Dev, "lvs", "lv", "lv_name,lv_size,lv_tags,lv_active,lv_metadata_size", g.Name)
	if err != nil {
		return err
	}
	for _, row := range lvs {
		n := numbers{row: row}
		v := Volume{
			Name:   row["lv_name"],
			Bytes:  n.get("lv_size"),
			Active: row["lv_active"] == "active",
			Tags:   splitTags(row["lv_tags"]),
		}
		v.Formatted = slices.Contains(v.Tags, formatted)
		if row["lv_metadata_size"] != "" {
			v.Metadata = n.get("lv_metadata_size")
		}
		if n.err != nil {
			return n.err
		}
		g.Volumes = append(g.Volumes, v)
	}
	return nil
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
