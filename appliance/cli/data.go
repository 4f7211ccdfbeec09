// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/status"
)

func dataVerb(o *options) *cobra.Command {
	var asJSON bool
	var root string
	c := &cobra.Command{
		Use:   "data",
		Short: "Show where the data of the services lives, and the disks there are",
		Long: `Show where the data of the services lives, on the system disk or on a data
disk, what its label says, and the other disks, which are never touched.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			d, err := firstboot.ReadData(root)
			switch {
			case errors.Is(err, firstboot.ErrNoDataFile):
				return errors.New("holdfast-data has not run in this boot; look at systemctl status holdfast-data")
			case err != nil:
				return err
			case asJSON:
				enc := json.NewEncoder(o.io.Out)
				enc.SetIndent("", "  ")
				return enc.Encode(d)
			}
			return writeData(o.io.Out, d)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "the same as JSON; its fields are a contract")
	c.PersistentFlags().StringVar(&root, "root", "", "folder that stands for /")
	c.PersistentFlags().MarkHidden("root")
	c.AddCommand(&cobra.Command{
		Use:   "adopt",
		Short: "Take the data disk of another box, and go on with its data",
		Long: `Take the data disk that holds the stack: one that another box used last, or one
that was restored from a backup. Make sure first that no other machine uses it.
The stack then starts without a reboot. What an unfinished upgrade had written
on the other box is dropped; the data from before it stays.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if root == "" && os.Geteuid() != 0 {
				return errors.New("only root may adopt a disk; run this as root")
			}
			env := firstboot.Env{Root: root, Out: o.io.Err, Wish: func() firstboot.Wish { return dataWish(root) }}
			said, err := firstboot.Adopt(c.Context(), env)
			if err != nil {
				return err
			}
			fmt.Fprintf(o.io.Out, "%s\n", said)
			if err := firstboot.StartData(c.Context(), env); err != nil {
				return fmt.Errorf("it could not be put in use: %w; holdfast data says more", err)
			}
			return nil
		},
	})
	return c
}

// dataWish is what the configuration says about the data disk.
func dataWish(root string) firstboot.Wish {
	e, err := config.Load(root)
	if err != nil {
		return firstboot.Wish{Refused: err.Error()}
	}
	w := firstboot.Wish{Disk: e.Config.Data.Disk, Adopt: e.Config.Data.Adopt}
	for _, s := range e.Sources {
		if s.State != config.Refused {
			continue
		}
		w.Refused = s.Where
		if len(s.Problems) > 0 {
			w.Refused += ": " + s.Problems[0].String()
		}
	}
	return w
}

// writeData prints where the data lives for people.
func writeData(w io.Writer, d status.DataDisk) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	switch {
	case d.Held != nil:
		fmt.Fprintf(t, "data\tnot in use\n")
	case d.Disk != nil:
		fmt.Fprintf(t, "data\ton a data disk\n")
		fmt.Fprintf(t, "disk\t%s, %s\n", d.Disk.Device, bytesText(d.Disk.Bytes))
		fmt.Fprintf(t, "known as\t%s\n", cmp.Or(d.Disk.ID, "-"))
		fmt.Fprintf(t, "model, serial\t%s, %s\n", cmp.Or(d.Disk.Model, "-"), cmp.Or(d.Disk.Serial, "-"))
	default:
		fmt.Fprintf(t, "data\ton the system disk\n")
	}
	if d.Volume != "" {
		fmt.Fprintf(t, "volume\t%s/%s\n", d.Group, d.Volume)
	}
	if d.Label != nil {
		fmt.Fprintf(t, "label\t%s\n", labelText(*d.Label))
	}
	t.Flush()
	if len(d.Others) > 0 {
		fmt.Fprintf(&b, "\n")
		t = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "OTHER DISK\tSIZE\tSERIAL\tHOLDS\tKNOWN AS\n")
		for _, o := range d.Others {
			holds := cmp.Or(o.Holds, "nothing")
			if o.Label != nil {
				holds = "data of " + labelText(*o.Label)
			}
			if o.Unfit != "" {
				holds += " (no home for data: " + o.Unfit + ")"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", o.Device, bytesText(o.Bytes), cmp.Or(o.Serial, "-"), holds, cmp.Or(o.ID, "-"))
		}
		t.Flush()
	}
	conditions := d.Conditions
	if d.Held != nil {
		conditions = append([]status.Condition{*d.Held}, conditions...)
	}
	for _, c := range conditions {
		fmt.Fprintf(&b, "\n%s: %s (%s)\n  to do: %s\n", c.Severity, c.Text, c.Code, c.Remedy)
	}
	for line := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func labelText(l status.DataLabel) string {
	s := "box " + l.Box
	if l.Release != "" {
		s += fmt.Sprintf(", %s %s, readable from %s", l.Release, l.Version, l.ReadableFrom)
	}
	if l.Generation > 0 {
		s += fmt.Sprintf(", generation %d", l.Generation)
	}
	if l.Trial > 0 {
		s += fmt.Sprintf(", %d was being tried", l.Trial)
	}
	return s
}

// bytesText writes a disk's size in the largest unit that is not 0.
func bytesText(n int64) string {
	if n >= 10<<30 {
		return fmt.Sprintf("%d GiB", n>>30)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
