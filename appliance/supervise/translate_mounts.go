// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/holdfast/holdfast/appliance/engine"
)

// mounts adds volumes, configs and secrets.
func (t *translation) mounts(h *container.HostConfig) error {
	for _, v := range t.s.Volumes {
		m, err := t.volume(v)
		if err != nil {
			return err
		}
		if asBind(v) {
			h.Binds = append(h.Binds, bindString(m.Source, v))
			continue
		}
		h.Mounts = append(h.Mounts, m)
	}
	for _, c := range t.s.Configs {
		def, ok := t.p.Configs[c.Source]
		if !ok {
			return fmt.Errorf("config %s is not defined", c.Source)
		}
		m, err := t.fileMount("config", types.FileReferenceConfig(c), types.FileObjectConfig(def), "", "/")
		if err != nil {
			return err
		}
		h.Mounts = append(h.Mounts, m)
	}
	for _, c := range t.s.Secrets {
		def, ok := t.p.Secrets[c.Source]
		if !ok {
			return fmt.Errorf("secret %s is not defined", c.Source)
		}
		m, err := t.fileMount("secret", types.FileReferenceConfig(c), types.FileObjectConfig(def), t.o.SecretFiles[c.Source], "/run/secrets/")
		if err != nil {
			return err
		}
		h.Mounts = append(h.Mounts, m)
	}
	slices.Sort(h.Binds)
	slices.SortStableFunc(h.Mounts, func(a, b mount.Mount) int { return cmp.Compare(a.Target, b.Target) })
	return nil
}

// asBind says which of the engine's two ways Compose takes for a mount: the
// older one, a line of text, wherever it can say the same.
func asBind(v types.ServiceVolumeConfig) bool {
	switch v.Type {
	case types.VolumeTypeBind:
		b := v.Bind
		return b == nil || bool(b.CreateHostPath) && b.Propagation == "" && b.Recursive == ""
	case types.VolumeTypeVolume:
		o := v.Volume
		return v.Source != "" && (o == nil || len(o.Labels) == 0 && o.Subpath == "" && !o.NoCopy)
	}
	return false
}

// bindString is "SOURCE:TARGET:OPTIONS".
func bindString(source string, v types.ServiceVolumeConfig) string {
	options := "rw"
	if v.ReadOnly {
		options = "ro"
	}
	if v.Bind != nil && v.Bind.SELinux != "" {
		options += "," + v.Bind.SELinux
	}
	return source + ":" + v.Target + ":" + options
}

func (t *translation) volume(v types.ServiceVolumeConfig) (mount.Mount, error) {
	m := mount.Mount{Type: mount.Type(v.Type), Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly, Consistency: mount.Consistency(v.Consistency)}
	switch v.Type {
	case types.VolumeTypeVolume:
		if v.Source != "" {
			def, ok := t.p.Volumes[v.Source]
			if !ok {
				return m, fmt.Errorf("volume %s is not defined", v.Source)
			}
			m.Source = def.Name
		}
		if o := v.Volume; o != nil {
			m.VolumeOptions = &mount.VolumeOptions{NoCopy: o.NoCopy, Subpath: o.Subpath, Labels: o.Labels}
		}
	case types.VolumeTypeBind:
		t.binds = append(t.binds, v.Source)
		if b := v.Bind; b != nil {
			m.BindOptions = &mount.BindOptions{Propagation: mount.Propagation(b.Propagation), CreateMountpoint: bool(b.CreateHostPath)}
			switch b.Recursive {
			case "disabled":
				m.BindOptions.NonRecursive = true
			case "writable":
				m.BindOptions.ReadOnlyNonRecursive = true
			case "readonly":
				m.BindOptions.ReadOnlyForceRecursive = true
			}
		}
	case types.VolumeTypeTmpfs:
		if o := v.Tmpfs; o != nil {
			m.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: int64(o.Size), Mode: fs.FileMode(o.Mode)}
		}
	default:
		return m, fmt.Errorf("volume of type %q cannot be honoured on a box", v.Type)
	}
	return m, nil
}

// fileMount binds a config or a secret read-only. One without owner, mode or
// inline content is bound as it stands; any other is written by the
// supervisor, which gives it what the stack asks for.
func (t *translation) fileMount(kind string, ref types.FileReferenceConfig, def types.FileObjectConfig, made, target string) (mount.Mount, error) {
	switch {
	case ref.Target == "":
		target += ref.Source
	case strings.HasPrefix(ref.Target, "/"):
		target = ref.Target
	default:
		target += ref.Target
	}
	m := mount.Mount{Type: mount.TypeBind, Target: target, ReadOnly: true}
	if kind == "secret" { // Compose writes the options down for these only
		m.BindOptions = &mount.BindOptions{}
	}
	src := cmp.Or(made, def.File)
	if src == "" && def.Content == "" {
		return m, fmt.Errorf("%s %s has neither a file nor content", kind, ref.Source)
	}
	if src != "" && def.Content == "" && ref.UID == "" && ref.GID == "" && ref.Mode == nil {
		m.Source = src
		if made == "" {
			t.binds = append(t.binds, src)
		}
		return m, nil
	}
	f := File{Mode: 0o444}
	if ref.Mode != nil {
		f.Mode = fs.FileMode(*ref.Mode) & fs.ModePerm
	}
	var err error
	if f.UID, err = owner(ref.UID); err != nil {
		return m, fmt.Errorf("%s %s: uid %q is not a number", kind, ref.Source, ref.UID)
	}
	if f.GID, err = owner(ref.GID); err != nil {
		return m, fmt.Errorf("%s %s: gid %q is not a number", kind, ref.Source, ref.GID)
	}
	if src == "" {
		f.Content = []byte(def.Content)
	}
	name := fmt.Sprintf("%s.%s.%d.%d.%o", kind, ref.Source, f.UID, f.GID, f.Mode)
	dir := t.o.FilesDir
	if made != "" {
		// A copy of a secret stays beside the secret, on the data volume.
		f.From, dir = made, filepath.Dir(made)
	} else {
		content := f.Content
		if src != "" {
			f.From = src
			if content, err = t.o.ReadFile(src); err != nil {
				return m, fmt.Errorf("%s %s: %w", kind, ref.Source, err)
			}
		}
		// The name follows the content: a changed file is a new path, hence
		// a new container, and never changes under a running one.
		sum := sha256.Sum256(content)
		name += "." + hex.EncodeToString(sum[:8])
	}
	f.Path = filepath.Join(dir, name)
	m.Source = f.Path
	if !slices.ContainsFunc(t.d.Files, func(o File) bool { return o.Path == f.Path }) {
		t.d.Files = append(t.d.Files, f)
	}
	return m, nil
}

func owner(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

// hash identifies what the engine is asked for and the bytes it binds from
// the stack folder; Compose's own bookkeeping labels are left out. A new stack
// folder recreates the services that bind a file of it, and no others. Binds outside the stack folder count by path only: they
// are data.
func (t *translation) hash(spec engine.Spec, before []engine.Spec) (string, error) {
	w := sha256.New()
	if err := json.NewEncoder(w).Encode(spec); err != nil {
		return "", err
	}
	if len(before) > 0 {
		if err := json.NewEncoder(w).Encode(before); err != nil {
			return "", err
		}
	}
	if err := json.NewEncoder(w).Encode(t.s.Labels); err != nil {
		return "", err
	}
	for _, path := range t.binds {
		rel, err := filepath.Rel(t.p.WorkingDir, path)
		if t.p.WorkingDir == "" || err != nil || strings.HasPrefix(rel, "..") {
			continue
		}
		b, err := t.o.ReadFile(path)
		if err != nil {
			continue // a folder, or not there: the engine will say so
		}
		sum := sha256.Sum256(b)
		fmt.Fprintf(w, "%s %x\n", path, sum)
	}
	return hex.EncodeToString(w.Sum(nil)), nil
}
