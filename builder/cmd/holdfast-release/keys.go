// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/compose/trust"
	"github.com/holdfast/holdfast/images/durable"
)

// renewRoot is when the vendor is told to renew the root: while a bundle made
// now would still outlive it.
const renewRoot = 400 * 24 * time.Hour

// signing are the flags of every verb that signs.
type signing struct {
	keys    string
	signer  []string
	expires []string
	lock    *os.File
}

func (o *signing) flags(cmd *cobra.Command, keys bool) {
	f := cmd.Flags()
	if keys {
		f.StringVar(&o.keys, "keys", "", "the folder that keys init made")
	}
	f.StringArrayVar(&o.signer, "signer", nil, "a program that signs in place of key files, and its arguments; give it once for each word")
	f.StringArrayVar(&o.expires, "expires", nil, "ROLE=DAYS or ROLE=DATE until when what is signed is valid, such as targets=400 or timestamp=2027-01-31; may be given again")
}

// open reads the folder of keys, ready to sign. It is this process's alone
// until close: two at once would give one version two contents.
func (o *signing) open() (*trust.Repository, error) {
	dir, err := os.Open(o.keys)
	if err == nil {
		if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			dir.Close()
			return nil, fmt.Errorf("another holdfast-release signs with %s: wait for it to end (%w)", o.keys, err)
		}
		o.lock = dir
	}
	r, err := trust.OpenRepository(o.keys)
	if err != nil {
		return nil, err
	}
	return r, o.set(r)
}

func (o *signing) close() {
	if o.lock != nil {
		o.lock.Close()
	}
}

// set says how a repository signs and writes.
func (o *signing) set(r *trust.Repository) (err error) {
	if r.Now, err = signingTime(); err != nil {
		return err
	}
	if r.Lifetimes, err = lifetimes(o.expires, r.Now); err != nil {
		return usageError{err}
	}
	r.Write = func(path string, data []byte) error { return durable.WriteFile(path, data, 0o644) }
	if r.Keys == nil {
		r.Keys = &trust.Keyring{}
	}
	r.Keys.Env, r.Keys.Command = os.Getenv, o.signer
	return nil
}

// signingTime is SOURCE_DATE_EPOCH where it is set, so that signing can be
// done again with the same bytes.
func signingTime() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Now().UTC(), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > 1<<36 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q: set it to seconds since 1970, or not at all", text)
	}
	return time.Unix(n, 0).UTC(), nil
}

func lifetimes(list []string, now time.Time) (trust.Lifetimes, error) {
	var l trust.Lifetimes
	for _, text := range list {
		role, when, ok := strings.Cut(text, "=")
		to := map[string]*time.Duration{trust.RoleRoot: &l.Root, trust.RoleTargets: &l.Targets, trust.RoleSnapshot: &l.Snapshot, trust.RoleTimestamp: &l.Timestamp}[role]
		if !ok || to == nil {
			return l, fmt.Errorf("--expires: %q names no role: write it like targets=400 or timestamp=2027-01-31", text)
		}
		if days, err := strconv.Atoi(when); err == nil {
			*to = time.Duration(days) * 24 * time.Hour
		} else if day, err := time.Parse(time.DateOnly, when); err == nil {
			*to = day.Sub(now)
		} else {
			return l, fmt.Errorf("--expires: %q is neither a number of days nor a date like 2027-01-31", when)
		}
		if *to <= 0 || *to > 100*365*24*time.Hour {
			return l, fmt.Errorf("--expires: %s is over already, or a century away", text)
		}
	}
	return l, nil
}

func keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "keys", Short: "make, rotate and show the keys that releases are signed with", Args: noArgs,
		Long: `The keys and metadata of TUF that boxes trust releases by live in one folder:
root.json, which is baked into images; tuf/, all metadata ever signed, which is
public; and private/, key files of mode 0600. Keep all of it but private/ in
version control. Roles: root (says who may sign), targets (says which releases
there are), snapshot and timestamp (say that this is the newest; online).

A key is a file in private/, the variable HOLDFAST_KEY_<ROLE>, or a --signer.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(keysInitCommand(), keysRotateCommand(), keysShowCommand())
	return cmd
}

// roleFlags say how many keys a role has, and who keeps them.
type roleFlags struct{ count, threshold, public []string }

func (o *roleFlags) flags(cmd *cobra.Command, count string) {
	f := cmd.Flags()
	f.StringArrayVar(&o.count, count, nil, "ROLE=N keys to make for a role; may be given again")
	f.StringArrayVar(&o.threshold, "threshold", nil, "ROLE=N keys that must sign for a role; may be given again")
	f.StringArrayVar(&o.public, "public", nil, "ROLE=FILE, a key that is kept elsewhere, by its public half (PEM); may be given again")
}

// apply puts the flags into what each role has.
func (o *roleFlags) apply(to map[string]trust.RoleKeys) error {
	split := func(flag, text string) (string, string, error) {
		role, value, ok := strings.Cut(text, "=")
		if !ok || !slices.Contains(trust.Roles(), role) {
			return "", "", usageError{fmt.Errorf("--%s: %q names no role: write it like root=2; roles are %s", flag, text, strings.Join(trust.Roles(), ", "))}
		}
		return role, value, nil
	}
	number := func(flag, text string, set func(*trust.RoleKeys, int)) error {
		role, value, err := split(flag, text)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > 16 {
			return usageError{fmt.Errorf("--%s: %q is no number of keys", flag, text)}
		}
		k := to[role]
		set(&k, n)
		to[role] = k
		return nil
	}
	for _, text := range o.count {
		if err := number("keys", text, func(k *trust.RoleKeys, n int) { k.New = n }); err != nil {
			return err
		}
	}
	for _, text := range o.threshold {
		if err := number("threshold", text, func(k *trust.RoleKeys, n int) { k.Threshold = n }); err != nil {
			return err
		}
	}
	for _, text := range o.public {
		role, file, err := split("public", text)
		if err != nil {
			return err
		}
		key, err := trust.ReadPublicKey(file)
		if err != nil {
			return err
		}
		k := to[role]
		k.Public = append(k.Public, key)
		to[role] = k
	}
	return nil
}

func keysInitCommand() *cobra.Command {
	var o signing
	var roles roleFlags
	cmd := &cobra.Command{
		Use: "init DIR", Short: "make keys, and the root of trust that is baked into images", Args: oneArg("the folder to make"),
		Long: `Makes a folder with keys, the first root and an empty list of releases. By
default there are three root keys of which two must sign, so that one may be
lost and one stolen, and one key for each other role. Then move the root keys
to two places that are not this machine.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			keys := trust.DefaultKeys()
			if err := roles.apply(keys); err != nil {
				return err
			}
			r := &trust.Repository{}
			if err := o.set(r); err != nil {
				return err
			}
			if err := trust.Init(cmd.Context(), args[0], keys, r); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is the root of trust: bake it into images (trust_root). Keep %s safe, and the root keys elsewhere.\n", filepath.Join(args[0], trust.RootFile), filepath.Join(args[0], trust.PrivateDir))
			return showKeys(r, args[0], false, cmd.OutOrStdout())
		},
	}
	o.flags(cmd, false)
	roles.flags(cmd, "count")
	return cmd
}

func keysRotateCommand() *cobra.Command {
	var o signing
	var roles roleFlags
	var replace, revoke []string
	cmd := &cobra.Command{
		Use: "rotate DIR", Short: "change who signs: a new root that boxes follow", Args: oneArg("the folder of keys"),
		Long: `Makes the next root and signs it with the old root keys and the new ones, so that
every box follows, however many roots it is behind. What the new root no longer
vouches for is signed anew. Publish afterwards.

--role replaces all keys of a role by as many new ones. --add makes a key beside
those that are there. --revoke takes one away. Without any of them only the
root's expiry is renewed. Where root keys are on other machines, copy the folder
there and run holdfast-release sign until enough have signed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.keys = args[0]
			r, err := o.open()
			if err != nil {
				return err
			}
			defer o.close()
			change := trust.Rotation{Add: map[string]trust.RoleKeys{}, Revoke: revoke, Replace: replace}
			now, err := r.Show()
			if err != nil {
				return err
			}
			for _, role := range now {
				if slices.Contains(replace, role.Name) {
					change.Add[role.Name] = trust.RoleKeys{New: len(role.Keys)}
				}
			}
			if err := roles.apply(change.Add); err != nil {
				return err
			}
			if err := r.Rotate(cmd.Context(), change); err != nil {
				return err
			}
			report(r, cmd.ErrOrStderr())
			return showKeys(r, args[0], false, cmd.OutOrStdout())
		},
	}
	o.flags(cmd, false)
	roles.flags(cmd, "add")
	cmd.Flags().StringArrayVar(&replace, "role", nil, "a role whose keys are all replaced; may be given again")
	cmd.Flags().StringArrayVar(&revoke, "revoke", nil, "a key to take away, by at least eight digits of its id; may be given again")
	return cmd
}

func keysShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show DIR", Short: "show roles, keys, expiry and signed releases", Args: oneArg("the folder of keys"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := signing{keys: args[0]}
			r, err := o.open()
			if err != nil {
				return err
			}
			defer o.close()
			report(r, cmd.ErrOrStderr())
			return showKeys(r, args[0], asJSON, cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

// report says what is still to be done.
func report(r *trust.Repository, out io.Writer) {
	for _, w := range r.Waiting() {
		fmt.Fprintln(out, "waiting:", w)
	}
	if left := r.RootLeft(); left < renewRoot {
		fmt.Fprintf(out, "the root expires in %d days: renew it with holdfast-release keys rotate\n", int(left.Hours()/24))
	}
}

func showKeys(r *trust.Repository, dir string, asJSON bool, out io.Writer) error {
	roles, err := r.Show()
	if err != nil {
		return err
	}
	releases, err := r.Releases()
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Roles    []trust.Role   `json:"roles"`
			Releases []trust.Target `json:"releases"`
		}{roles, releases})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROLE\tVERSION\tEXPIRES\tNEEDS\tKEYS")
	for _, role := range roles {
		expires := "not signed yet"
		if !role.Expires.IsZero() {
			expires = role.Expires.Format(time.DateOnly)
		}
		var keys []string
		for _, k := range role.Keys {
			text := k.ID[:8]
			if k.Here {
				text += " (here)"
			}
			keys = append(keys, text)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d of %d\t%s\n", role.Name, role.Version, expires, role.Threshold, len(role.Keys), strings.Join(keys, ", "))
	}
	if len(releases) > 0 {
		fmt.Fprintln(w, "\nRELEASE\tEPOCH\tROLLOUT\tFROM\tCHANNELS\tDIGEST")
	}
	for _, t := range releases {
		fmt.Fprintf(w, "%s\t%d\t%d%%\t%s\t%s\t%s\n", t.Path(), t.Epoch, t.Rollout, cmp.Or(t.MinFrom, "any"), strings.Join(t.Channels, ","), t.Digest)
	}
	return w.Flush()
}

// oneArg asks for one argument, and says what it is.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError{fmt.Errorf("%s takes one argument, %s: see %s --help", cmd.Name(), what, cmd.CommandPath())}
		}
		return nil
	}
}
