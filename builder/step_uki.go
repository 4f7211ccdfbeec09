// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/images/sign"
)

// ukiVersion rises when stepUKI makes something else of the same input.
const ukiVersion = 1

// osRelease is embedded in every UKI. It carries no version: systemd-boot
// would sort by it before it sorts by file name, and a trial must come first
// whatever release it is.
const osRelease = "ID=holdfast\nNAME=\"Holdfast\"\nPRETTY_NAME=\"Holdfast\"\n"

// cmdline is the kernel command line: the root hash and where the one
// partition that holds squashfs and hash tree is, after what the box wants.
func cmdline(o OS, m sealMeta) string {
	part := "PARTUUID=" + partUUID(m.RootHash)
	return strings.Join(append([]string{
		"roothash=" + m.RootHash,
		"systemd.verity_root_data=" + part,
		"systemd.verity_root_hash=" + part,
		"systemd.verity_root_options=hash-offset=" + strconv.FormatInt(m.HashOffset, 10),
	}, o.Cmdline...), " ")
}

// partUUID is the first half of the root hash in the form of a UUID: the
// identity of the slot that holds it.
func partUUID(rootHash string) string {
	h := rootHash
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:32]}, "-")
}

// stepUKI joins kernel, initrd and command line into one signed program, and
// signs systemd-boot with the same key and time.
func stepUKI(ctx context.Context, w *work) (made, error) {
	line := cmdline(w.cfg.OS, w.seal.meta)
	k := key("uki", ukiVersion, w.tree.Hash, w.initrdKey, line, osRelease, hex.EncodeToString(w.cert.Raw), w.lock.Epoch)
	dir, cached, err := product(ctx, w.cfg.Cache, "uki", k, func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "os-release"), []byte(osRelease), 0o644); err != nil {
			return err
		}
		const out, in = "/run/holdfast/out", "/run/holdfast/initrd"
		err := w.tree.Run(ctx, sandbox.Cmd{
			Args: []string{"ukify", "build", "--linux=" + in + "/vmlinuz", "--initrd=" + in + "/initrd.img", "--cmdline=" + line,
				"--os-release=@" + out + "/os-release", "--uname=" + w.kernelRelease, "--output=" + out + "/unsigned.efi"},
			Env:   append(debian.TreeEnv(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(w.lock.Epoch, 10)),
			Binds: []sandbox.Bind{{Host: dir, Tree: out}, {Host: filepath.Dir(w.initrd), Tree: in, ReadOnly: true}},
		})
		if err != nil {
			return err
		}
		for from, to := range map[string]string{
			filepath.Join(dir, "unsigned.efi"):                                        "holdfast.efi",
			filepath.Join(w.tree.Dir, "usr/lib/systemd/boot/efi/systemd-bootx64.efi"): "systemd-boot.efi",
		} {
			b, err := os.ReadFile(from)
			if err != nil {
				return err
			}
			signed, err := sign.Authenticode(b, w.key, w.cert, time.Unix(w.lock.Epoch, 0).UTC())
			if err != nil {
				return fmt.Errorf("signing %s: %w", to, err)
			}
			if err := os.WriteFile(filepath.Join(dir, to), signed, 0o644); err != nil {
				return err
			}
		}
		return os.Remove(filepath.Join(dir, "unsigned.efi"))
	})
	if err != nil {
		return made{}, err
	}
	w.uki, w.bootloader, w.ukiKey = filepath.Join(dir, "holdfast.efi"), filepath.Join(dir, "systemd-boot.efi"), k
	return madeFile(cached, w.uki)
}
