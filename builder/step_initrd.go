// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/images/initramfs"
)

// initrdVersion rises when stepInitrd makes something else of the same input.
const initrdVersion = 2

// stepInitrd makes the initrd with the tools tree's dracut and systemd from
// the kernel package alone. So it needs no root file system, runs beside its
// making, and is kept by kernel, tools tree and module list.
func stepInitrd(ctx context.Context, w *work) (made, error) {
	kernel, release, err := kernelPackage(w.lock.OS)
	if err != nil {
		return made{}, err
	}
	k := key("initrd", initrdVersion, w.initrdAdd, w.tree.Hash, kernel, w.lock.Epoch, w.cfg.OS.InitrdModules, w.cfg.OS.InitrdDrivers, w.cfg.OS.InitrdOmit)
	dir, cached, err := product(ctx, w.cfg.Cache, "initrd", k, func(dir string) error {
		const at = "/run/holdfast/out"
		binds := []sandbox.Bind{{Host: dir, Tree: at}, {Host: w.debs.Path(kernel), Tree: "/run/holdfast/kernel.deb", ReadOnly: true}}
		// dracut refuses a configuration folder that is not there.
		if err := os.Mkdir(filepath.Join(dir, "conf"), 0o755); err != nil {
			return err
		}
		// depmod looks below /lib, the package unpacks below /usr/lib.
		if err := os.Mkdir(filepath.Join(dir, "kernel"), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/lib", filepath.Join(dir, "kernel/lib")); err != nil {
			return err
		}
		for _, args := range [][]string{
			{"dpkg-deb", "-x", "/run/holdfast/kernel.deb", at + "/kernel"},
			{"depmod", "-b", at + "/kernel", release},
			dracutArgs(release, at, w.cfg.OS),
		} {
			env := append(debian.TreeEnv(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(w.lock.Epoch, 10))
			if err := w.tree.Run(ctx, sandbox.Cmd{Args: args, Binds: binds, Env: env}); err != nil {
				return err
			}
		}
		if err := packInitrd(dir, w.initrdAdd, w.lock.Epoch); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(dir, "kernel/boot/vmlinuz-"+release), filepath.Join(dir, "vmlinuz")); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(dir, "conf")); err != nil {
			return err
		}
		return os.RemoveAll(filepath.Join(dir, "kernel"))
	})
	if err != nil {
		return made{}, err
	}
	w.kernel, w.initrd, w.kernelRelease, w.initrdKey = filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd.img"), release, k
	return madeFile(cached, w.initrd)
}

// initrdFiles are the files to add to the initrd.
func initrdFiles(from fs.FS) (list []initramfs.File, err error) {
	if from == nil {
		return nil, nil
	}
	err = fs.WalkDir(from, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(from, p)
		list = append(list, initramfs.File{Path: p, Mode: 0o644, Data: b})
		return err
	})
	return list, err
}

// packInitrd replaces dracut's plain archive by what the UKI holds.
func packInitrd(dir string, add []initramfs.File, epoch int64) error {
	plain := filepath.Join(dir, "initrd.cpio")
	b, err := os.ReadFile(plain)
	if err != nil {
		return err
	}
	packed, err := initramfs.Pack(b, add, epoch)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "initrd.img"), packed, 0o644); err != nil {
		return err
	}
	return os.Remove(plain)
}

// dracutArgs is dracut's command line for an initrd that depends on nothing
// but its input: no host, no time, no machine id.
func dracutArgs(release, at string, o OS) []string {
	return []string{"dracut", "--reproducible", "--no-hostonly", "--no-hostonly-cmdline", "--no-hostonly-default-device",
		"--no-hostonly-i18n", "--no-early-microcode", "--nostrip", "--no-machineid", "--quiet",
		"--conf", "/dev/null", "--confdir", at + "/conf", "--tmpdir", "/tmp",
		"--kver", release, "--kmoddir", at + "/kernel/usr/lib/modules/" + release,
		"--modules", strings.Join(o.InitrdModules, " "), "--drivers", strings.Join(o.InitrdDrivers, " "),
		"--omit-drivers", strings.Join(o.InitrdOmit, " "),
		"--no-compress", "--force", at + "/initrd.cpio"}
}
