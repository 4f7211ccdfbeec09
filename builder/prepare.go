// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/builder/version"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/stack"
	"github.com/holdfast/holdfast/images/sign"
)

var (
	validReleaseName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
	validVersion     = regexp.MustCompile(`^\d{1,9}\.\d{1,9}\.\d{1,9}(-[0-9A-Za-z.-]{1,40})?$`)
	errNoSpace       = syscall.ENOSPC
)

// prepare checks everything that can be checked before the first step, and
// reads what the steps need. It writes nothing but a demo signing key.
func prepare(ctx context.Context, c Config, p Progress) (*work, error) {
	if !validReleaseName.MatchString(c.Name) {
		return nil, fmt.Errorf("name: %q must be 1 to 40 of a-z, 0-9 and -, starting with a letter or digit", c.Name)
	}
	if !validVersion.MatchString(c.Version) {
		return nil, fmt.Errorf("version: %q is no version of the form 1.2.3", c.Version)
	}
	for k, v := range map[string]int64{"slot_size": c.SlotSize, "disk_size": c.DiskSize} {
		if v < 0 || v > 64<<40 || v%(1<<20) != 0 {
			return nil, fmt.Errorf("%s: must be whole MiB between 0 and 64 TiB, not %d bytes", k, v)
		}
	}
	switch c.Factory {
	case "":
		c.Factory = Embedded
	case Embedded, Seed:
	default:
		return nil, fmt.Errorf("factory: %q is neither %q nor %q", c.Factory, Embedded, Seed)
	}
	if err := c.CheckUpgrade(); err != nil {
		return nil, err
	}
	if len(c.OS.Supervisor) == 0 {
		return nil, errors.New("the supervisor is not built into this program: build it with `make`, which embeds it")
	}
	var err error
	if c.Output, err = filepath.Abs(c.Output); err != nil {
		return nil, err
	}
	if c.Cache == "" {
		c.Cache, err = CacheDir()
	} else {
		c.Cache, err = filepath.Abs(c.Cache)
	}
	if err != nil {
		return nil, err
	}
	w := &work{cfg: c, p: p, debs: cacheOf(c)}
	if w.stack, err = stack.Load(ctx, c.Stack, stack.Options{}); err != nil {
		return nil, err
	}
	if err := w.stack.CheckVersion(c.Version); err != nil {
		return nil, err
	}
	if err := w.prove(); err != nil {
		return nil, err
	}
	if err := w.readLock(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a bake installs Debian packages into a folder and needs root: run as root or with sudo")
	}
	if err := w.keys(p); err != nil {
		return nil, err
	}
	trustRoot, err := readTrustRoot(c.TrustRoot)
	if err != nil {
		return nil, err
	}
	if w.engine = c.OS.Engine; w.engine == "" {
		if w.engine, err = engineOf(w.lock.OS); err != nil {
			return nil, err
		}
	}
	if w.initrdAdd, err = initrdFiles(c.OS.InitrdFiles); err != nil {
		return nil, err
	}
	w.add, err = overlay(c.OS, w.certPEM, trustRoot, w.engine)
	return w, err
}

// prove holds the stack's budgets to the machines it is made for: every size
// it names, or those of Holdfast's own that it fits. What can start on no
// machine is not baked.
func (w *work) prove() error {
	sizes, err := budget.Prove(w.stack)
	var no *budget.Refused
	if errors.As(err, &no) {
		return fmt.Errorf("%w`holdfast-release budget --stack %s --size %s` shows this table again", err, w.cfg.Stack, no.Budget.Size)
	} else if err != nil {
		return err
	}
	var names []string
	for _, s := range sizes {
		names = append(names, s.Name)
	}
	if len(w.stack.Profiles) == 0 && names[0] != budget.DefaultSize {
		w.p.Warn("the stack's budgets do not fit %s: it is made for %s", budget.DefaultSize, strings.Join(names, ", "))
	}
	w.sizes = sizes
	return nil
}

// readLock reads the lock and holds it to stack, configuration and program.
func (w *work) readLock() error {
	c := w.cfg
	l, err := lock.Read(c.Lock)
	if errors.Is(err, os.ErrNotExist) {
		if err := lock.Check(nil, w.stack); err != nil {
			return err
		}
		return fmt.Errorf("lock: %s does not exist; make it with `holdfast-release lock --stack %s --lock %s`", c.Lock, c.Stack, c.Lock)
	}
	if err != nil {
		return err
	}
	if err := lock.Check(l, w.stack); err != nil {
		return err
	}
	relock := fmt.Sprintf("lock anew with `holdfast-release lock --stack %s --lock %s`", c.Stack, c.Lock)
	if l.Holdfast != version.Version {
		return fmt.Errorf("%s was made by Holdfast %s, this is %s; %s", c.Lock, l.Holdfast, version.Version, relock)
	}
	built, err := supervisorGo(c.OS)
	if err != nil {
		return err
	}
	if l.Go != built {
		return fmt.Errorf("%s pins %s, but the supervisor was built by %s; build with the pinned one, or %s", c.Lock, l.Go, built, relock)
	}
	if d := difference(wanted(c.OS.Packages, c.ExtraPackages), l.OS.Wanted); d != "" {
		return fmt.Errorf("%s does not match the packages this bake wants (%s); %s", c.Lock, d, relock)
	}
	if d := difference(wanted(tools.Packages), l.Tools.Wanted); d != "" {
		return fmt.Errorf("%s does not match the tools this Holdfast bakes with (%s); %s", c.Lock, d, relock)
	}
	w.lock = l
	return nil
}

// keys loads the signing pair, or makes one where the configuration allows it.
func (w *work) keys(p Progress) error {
	c := w.cfg
	_, kerr := os.Stat(c.SigningKey)
	_, cerr := os.Stat(c.SigningCert)
	if c.MakeKey && errors.Is(kerr, os.ErrNotExist) && errors.Is(cerr, os.ErrNotExist) {
		for _, f := range []string{c.SigningKey, c.SigningCert} {
			if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
				return err
			}
		}
		if err := sign.MakePair(c.SigningKey, c.SigningCert, "Holdfast demo key of "+c.Name, time.Now()); err != nil {
			return fmt.Errorf("signing_key: %w", err)
		}
		p.Warn("MADE A DEMO SIGNING KEY at %s: anyone who has it can sign for boxes baked with it. Never ship an image signed by it; name your own with signing_key and signing_cert.", c.SigningKey)
	}
	var err error
	if w.key, w.cert, err = sign.LoadPair(c.SigningKey, c.SigningCert); err != nil {
		return err
	}
	w.certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.cert.Raw})
	return nil
}

// inputs is a hash over everything the bake reads; two bakes with the same
// one are the same bake.
func (w *work) inputs() string {
	c := w.cfg
	h := sha256.New()
	fmt.Fprintf(h, "bake 4 %q %q %q %d %d %q\n", c.Name, c.Version, c.Factory, c.SlotSize, c.DiskSize, version.Version)
	fmt.Fprintln(h, key(c.Epoch, c.MinFrom, c.UpdateSource, c.UpdateChannel, c.GateDeadline, c.GateWindow))
	fmt.Fprintf(h, "%s\n%s\n", w.lock.Marshal(), overlayHash(w.add))
	fmt.Fprintln(h, key(c.OS.Remove, c.OS.Purge, c.OS.Move, c.OS.InitrdModules, c.OS.InitrdDrivers, c.OS.InitrdOmit, c.OS.Cmdline, w.initrdAdd))
	fmt.Fprintf(h, "%q %s\n", printPlan(plan()), key(rootfsVersion, initrdVersion, sealVersion, ukiVersion, factoryVersion, releaseVersion))
	return hex.EncodeToString(h.Sum(nil))
}

// supervisorGo is the toolchain that built the supervisor.
func supervisorGo(o OS) (string, error) {
	info, err := buildinfo.Read(bytes.NewReader(o.Supervisor))
	if err != nil {
		return "", fmt.Errorf("the supervisor is no Go program: %w", err)
	}
	return info.GoVersion, nil
}

// wanted joins lists of package names, sorted, each once.
func wanted(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}

// difference says what two sorted lists do not share, "" when they are equal.
func difference(want, have []string) string {
	var d []string
	for _, n := range want {
		if !slices.Contains(have, n) {
			d = append(d, "lacks "+n)
		}
	}
	for _, n := range have {
		if !slices.Contains(want, n) {
			d = append(d, "has "+n+" too many")
		}
	}
	return strings.Join(d, ", ")
}

func hashFile(dir, name string) (ManifestFile, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return ManifestFile{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return ManifestFile{Name: name, Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

func mark(path string) (fileMark, error) {
	st, err := os.Stat(path)
	if err != nil {
		return fileMark{}, err
	}
	sys := st.Sys().(*syscall.Stat_t)
	return fileMark{st.Size(), sys.Ino, st.ModTime().UnixNano()}, nil
}
