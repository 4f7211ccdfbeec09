// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
)

func historyVerb(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "history",
		Short: "List how upgrades, rollbacks and drills ended",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := o.client().History(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(o.io.Out, list)
			}
			return writeHistory(o.io.Out, list)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "the list as JSON; its fields are a contract")
	return c
}

func writeHistory(w io.Writer, list []status.UpgradeResult) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "there was no upgrade yet")
		return err
	}
	t := newTable()
	t.row("ENDED", "GENERATION", "WHAT", "FROM", "TO", "RESULT", "AWAY", "FETCHED", "WHY")
	for _, r := range list {
		away, fetched := "-", "-"
		if r.Down > 0 {
			away = fmt.Sprintf("%.1f s", float64(r.Down)/1000)
		}
		if r.Fetched+r.Reused > 0 {
			fetched = fmt.Sprintf("%s of %s", sizeText(float64(r.Fetched)), sizeText(float64(r.Fetched+r.Reused)))
		}
		t.row(r.End.UTC().Format("2006-01-02 15:04:05"), r.Generation, r.Kind, r.From, r.To, r.Result, away, fetched, r.Why)
	}
	_, err := io.WriteString(w, t.String())
	return err
}

func whyVerb(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "why [GENERATION]",
		Short: "Explain how an upgrade ended: one sentence, then the evidence",
		Long: `Explain how an upgrade, a rollback or a drill ended: one sentence, then the
evidence, such as the failing condition, the last log lines of the failing
service and the boots. Without GENERATION it is the last that did not go well.`,
		Args: atMostOne,
		RunE: func(c *cobra.Command, args []string) error {
			n := 0
			if len(args) > 0 {
				var err error
				if n, err = strconv.Atoi(args[0]); err != nil || n < 1 {
					return exit(ExitUsage, "%.60q is no number of a generation; holdfast history lists them", args[0])
				}
			}
			y, err := o.client().Why(c.Context(), n)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(o.io.Out, y)
			}
			return writeWhy(o.io.Out, y)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "the same as JSON; its fields are a contract")
	return c
}

func writeWhy(w io.Writer, y upgrade.Why) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", indented(y.Sentence, "  "))
	r := y.Result
	if !r.End.IsZero() {
		fmt.Fprintf(&b, "\n%s %s -> %s, generation %d, %s at %s\n", r.Kind, cmp.Or(r.From, "-"), cmp.Or(r.To, "-"), r.Generation, r.Result, r.End.UTC().Format(time.RFC3339))
	}
	if len(r.Boots) > 0 {
		fmt.Fprintf(&b, "boots: %s\n", strings.Join(r.Boots, ", "))
	}
	for _, e := range r.Evidence {
		fmt.Fprintf(&b, "\n%s:\n", status.Printable(e.What))
		for _, l := range e.Lines {
			fmt.Fprintf(&b, "  %s\n", strings.TrimRight(status.Printable(l), " "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func channelVerb(o *options) *cobra.Command {
	var asJSON, reset bool
	c := &cobra.Command{
		Use:   "channel [NAME]",
		Short: "Show which channel of releases is followed, or follow another",
		Long: `Show which channel of releases this box follows and where it looks for them, or
follow the channel NAME. It counts more than the configuration's; --reset goes
back to that.`,
		Args: atMostOne,
		RunE: func(c *cobra.Command, args []string) error {
			var x any
			var text string
			switch {
			case len(args) > 0 && reset:
				return exit(ExitUsage, "name a channel or give --reset, not both")
			case len(args) > 0, reset:
				name := ""
				if !reset {
					name = args[0]
				}
				ch, err := o.client().SetChannel(c.Context(), name)
				if err != nil {
					return err
				}
				x, text = ch, channelText(ch.Channel, ch.Source)
			default:
				r, err := o.client().Status(c.Context())
				if err != nil {
					return err
				}
				if r.Upgrade == nil {
					return exit(ExitFailed, "this box follows no channel: it can have no other releases")
				}
				x = map[string]string{"channel": r.Upgrade.Channel, "source": r.Upgrade.Source}
				text = channelText(r.Upgrade.Channel, r.Upgrade.Source)
			}
			if asJSON {
				return printJSON(o.io.Out, x)
			}
			_, err := fmt.Fprintln(o.io.Out, text)
			return err
		},
	}
	c.Flags().BoolVar(&reset, "reset", false, "follow the configuration's or the release's again")
	c.Flags().BoolVar(&asJSON, "json", false, "the same as JSON; its fields are a contract")
	return c
}

func channelText(channel, source string) string {
	return status.Printable(channel + " from " + cmp.Or(source, "nowhere: set updates.source in the configuration, or name a source with holdfast upgrade REF"))
}

func forecastVerb(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "forecast",
		Short: "Say whether newer releases will fit this box",
		Long: `Hold the requirements of newer releases against this box: disk, memory,
processors, configuration, signing keys. Nothing is fetched but metadata.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := o.client().Forecast(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(o.io.Out, list)
			}
			return writeForecast(o.io.Out, list)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "the list as JSON; its fields are a contract")
	return c
}

func writeForecast(w io.Writer, list []upgrade.Outlook) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "there is no newer release")
		return err
	}
	t := newTable()
	t.row("RELEASE", "CHANNELS", "FITS", "WHY NOT", "TO DO")
	for _, l := range list {
		fits := "no"
		if l.Fits {
			fits = "yes"
		}
		channels := cmp.Or(strings.Join(l.Channels, ", "), "-")
		if len(l.Refused) == 0 {
			t.row(l.Target, channels, fits, "", "")
		}
		for i, r := range l.Refused {
			if i == 0 {
				t.row(l.Target, channels, fits, r.Why, r.Remedy)
			} else {
				t.row("", "", "", r.Why, r.Remedy)
			}
		}
	}
	_, err := io.WriteString(w, t.String())
	return err
}
