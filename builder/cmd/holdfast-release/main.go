// SPDX-License-Identifier: Apache-2.0

// Program holdfast-release is the vendor's command line: it makes a stack's
// images, locks a stack, runs and inspects what was baked, signs and publishes it. Baking itself is
// Packer's, through packer-plugin-holdfast.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder/sandbox"
)

// Exit codes, the same for every verb.
const (
	exitDone        = 0
	exitFailed      = 1   // the work failed; the message says what to do next
	exitUsage       = 2   // the command line is wrong; nothing was done
	exitInterrupted = 130 // stopped by Ctrl-C or SIGTERM; nothing half-made is left
)

const long = `holdfast-release is the vendor's command line of Holdfast.

  images   make a stack's own images from a recipe into an OCI layout
  lock     pin a stack: image digests, Debian packages, tools
  budget   show what each service of a stack gets, and whether it fits
  run      boot a baked disk in QEMU, with its port forwarded
  inspect  show what a bake made, and check it
  keys     make, rotate and show the keys that releases are signed with
  sign     sign a release, take one back, or renew what expires
  publish  sign a release and put it where boxes look
  bundle   put a release into one file, for boxes without a network
  verify   read every byte of what is published, as a box would
  diff     show what a box on one release would fetch for another
  check-marketplace
           look into a baked disk for what marketplaces reject
  secure-boot
           write a disk's Secure Boot keys for firmware, AWS and Google
  tools    print the folder of a lock's tools tree, made if absent
  version  print the version

Baking is Packer's: packer build packer.pkr.hcl

Exit codes: 0 done; 1 failed, the message says what to do next; 2 wrong use,
nothing was done; 130 interrupted, nothing half-made is left.
The answer of a command is on standard output, all else on standard error.`

func main() {
	sandbox.Child()
	os.Exit(run(os.Args[1:]))
}

// usageError marks a wrong command line.
type usageError struct{ error }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root(args).ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "holdfast-release: interrupted")
		return exitInterrupted
	}
	fmt.Fprintln(os.Stderr, "holdfast-release:", err)
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// root joins the verbs.
func root(args []string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "holdfast-release", Long: long, SilenceErrors: true, SilenceUsage: true,
		// Without a verb the help is the answer, an unknown one is wrong use.
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("there is no verb %q: see holdfast-release --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
	})
	cmd.AddCommand(imagesCommand(), lockCommand(), budgetCommand(), runCommand(), inspectCommand(),
		keysCommand(), signCommand(), publishCommand(), bundleCommand(), verifyCommand(), diffCommand(), marketplaceCommand(), secureBootCommand(), toolsCommand(), versionCommand())
	cmd.SetArgs(args)
	cmd.SetOut(os.Stdout)
	return cmd
}

// noArgs and upToOne are cobra's, as usage errors.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument %q: see %s --help", cmd.Name(), args[0], cmd.CommandPath())}
	}
	return nil
}

func upToOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usageError{fmt.Errorf("%s takes one argument at most: see %s --help", cmd.Name(), cmd.CommandPath())}
	}
	return nil
}

// required says which flag is missing, and what it is for.
func required(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if f := cmd.Flags().Lookup(name); f.Value.String() == "" {
			return usageError{fmt.Errorf("--%s is missing (%s)", name, f.Usage)}
		}
	}
	return nil
}
