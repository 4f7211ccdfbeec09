// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/upgrade"
)

func upgradeVerb(o *options) *cobra.Command {
	var a upgrade.Ask
	var check, cancel bool
	w := &change{o: o, verb: "upgrade"}
	c := &cobra.Command{
		Use:   "upgrade [REF]",
		Short: "Install another release, or look whether there is one",
		Long: `Install another release: the newest one of the channel that this box may have,
or REF. REF is a version ("1.1.0"), or where releases are: https://HOST/FOLDER,
oci://HOST/REPOSITORY, usb:, a folder or a bundle file; then "#VERSION" may
follow.

The services go on while the release is fetched and written beside the one that
runs. Then the box switches: it reboots where the operating system is another
one, else only the stack is exchanged. The new release has to prove itself, on a
copy of the data and closed to the outside; if it does not become healthy, the
box goes back by itself, with the data as before.

The progress is shown until the box reboots. Ctrl-C ends the showing only.`,
		Args: atMostOne,
		RunE: func(c *cobra.Command, args []string) error {
			if cancel {
				if err := o.client().CancelUpgrade(c.Context()); err != nil {
					return err
				}
				_, err := fmt.Fprintln(o.io.Out, "cancelled; what was fetched is kept for the next upgrade")
				return err
			}
			if len(args) > 0 {
				var err error
				if a.Ref, a.Version, err = parseRef(args[0]); err != nil {
					return err
				}
			}
			if check {
				x, err := o.client().CheckUpgrade(c.Context(), a)
				if err != nil {
					return err
				}
				if w.asJSON {
					return printJSON(o.io.Out, x)
				}
				return writeChecked(o.io.Out, x)
			}
			op, err := o.client().Upgrade(c.Context(), a)
			if err != nil {
				return err
			}
			w.later = a.At != "" || a.DownloadOnly && !w.wait
			return w.follow(c.Context(), op)
		},
	}
	f := c.Flags()
	f.BoolVar(&check, "check", false, "only say what would be installed and how")
	f.BoolVar(&a.DownloadOnly, "download-only", false, "fetch and write it, and switch at the next `holdfast upgrade`")
	f.StringVar(&a.At, "at", "", `switch in a maintenance window: "Sun 02:00-04:00", or window for the configured one`)
	f.BoolVar(&a.AcceptExpired, "accept-expired", false, "take metadata whatever their age; all else is checked")
	f.BoolVar(&a.Force, "force", false, "also a release that has failed here before")
	f.BoolVar(&a.Keep, "keep", false, "keep the generation that is kept now, in the place of the one that is left")
	f.BoolVar(&cancel, "cancel", false, "end an upgrade that has not switched yet")
	w.flags(f)
	c.MarkFlagsMutuallyExclusive("check", "download-only", "cancel")
	c.MarkFlagsMutuallyExclusive("check", "at")
	return c
}

// versionForm tells a version from a path: folders that look like one are
// written as ./1.1.0.
var versionForm = regexp.MustCompile(`^v?[0-9]+(\.[0-9A-Za-z+~-]+)*$`)

// parseRef splits what an admin writes into the depot and the version there.
func parseRef(ref string) (depot, version string, err error) {
	if ref == "" || len(ref) > 4096 || strings.ContainsAny(ref, "\x00\n\r") {
		return "", "", exit(ExitUsage, "%.60q names no release; write a version, an address or a path", ref)
	}
	if versionForm.MatchString(ref) {
		return "", ref, nil
	}
	depot, version, _ = strings.Cut(ref, "#")
	if strings.Contains(depot, "://") || depot == "usb:" {
		return depot, version, nil
	}
	// The daemon works in another folder.
	if depot, err = filepath.Abs(depot); err != nil {
		return "", "", err
	}
	if _, err := os.Stat(depot); err != nil {
		return "", "", exit(ExitUsage, "%s is neither a version nor a folder or bundle on this box (%v)", ref, err)
	}
	return depot, version, nil
}

// atMostOne is cobra.MaximumNArgs(1) with our exit code.
func atMostOne(c *cobra.Command, args []string) error {
	if err := cobra.MaximumNArgs(1)(c, args); err != nil {
		return usageError{err}
	}
	return nil
}

// writeChecked prints what would be done.
func writeChecked(w io.Writer, x upgrade.Checked) error {
	var b strings.Builder
	switch {
	case x.Candidate == nil && x.Current:
		b.WriteString("this box has the newest release that it may have\n")
	case x.Candidate == nil && len(x.Plan) > 0: // a rollback
	case x.Candidate == nil:
		b.WriteString("there is nothing to install\n")
	default:
		fmt.Fprintf(&b, "%s (%.19s…)\n", x.Candidate.Target, x.Candidate.Digest)
	}
	for _, line := range x.Plan {
		fmt.Fprintf(&b, "  %s\n", indented(line, "    "))
	}
	for _, n := range x.Notes {
		fmt.Fprintf(&b, "note: %s\n", indented(n, "  "))
	}
	for _, r := range x.Refused {
		fmt.Fprintf(&b, "refused: %s (%s)\n  to do: %s\n", indented(r.Why, "  "), r.Code, indented(r.Remedy, "  "))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	if len(x.Refused) > 0 {
		return exit(ExitRefused, "it would not be installed; see above")
	}
	return nil
}

func rollbackVerb(o *options) *cobra.Command {
	var b upgrade.Back
	var check bool
	w := &change{o: o, verb: "rollback"}
	c := &cobra.Command{
		Use:   "rollback",
		Short: "Go back to the release before, with its data",
		Long: `Go back to the kept generation, with the data as they were when it was left:
what was written since is lost, unless --keep-data goes on with the data of now
and the release can read them. The release left becomes the kept one.

A rollback is never rolled back: where it does not get healthy it holds, closed
to the outside, and says why.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if check {
				x, err := o.client().CheckRollback(c.Context(), b)
				if err != nil {
					return err
				}
				if w.asJSON {
					return printJSON(o.io.Out, x)
				}
				return writeChecked(o.io.Out, x)
			}
			op, err := o.client().Rollback(c.Context(), b)
			if err != nil {
				return err
			}
			return w.follow(c.Context(), op)
		},
	}
	f := c.Flags()
	f.IntVar(&b.To, "to", 0, "the generation to go back to, as holdfast history numbers them; only a kept one can be had")
	f.BoolVar(&b.KeepData, "keep-data", false, "go on with the data of now")
	f.BoolVar(&check, "check", false, "only say what would be done, and which writes would be lost")
	w.flags(f)
	return c
}

func drillVerb(o *options) *cobra.Command {
	var at string
	w := &change{o: o, verb: "drill"}
	c := &cobra.Command{
		Use:   "drill",
		Short: "Try out the way back, and measure it",
		Long: `Try out the way back: the kept generation is booted on a copy of its data, closed
to the outside, and has to become healthy; then the box returns to the release
that runs now, with its data. Where none is kept, the stack that runs is tried
on a copy of its data. The time it took is in holdfast history. The services
are away meanwhile.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			op, err := o.client().Drill(c.Context(), at)
			if err != nil {
				return err
			}
			w.later = at != ""
			return w.follow(c.Context(), op)
		},
	}
	c.Flags().StringVar(&at, "at", "", `in a maintenance window: "Sun 02:00-04:00", or window for the configured one`)
	w.flags(c.Flags())
	return c
}
