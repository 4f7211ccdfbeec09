// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/appliance/daemon"
	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status/facts"
	"github.com/holdfast/holdfast/compose/budget"
)

type daemonOptions struct {
	engine, state, run, data, factory, trust string
	stack, lock                              string
	images                                   []string
	size                                     string
	metrics                                  daemon.Metrics
}

func daemonVerb(o *options) *cobra.Command {
	d := &daemonOptions{}
	c := &cobra.Command{
		Use:   "daemon",
		Short: "Run the stack and keep it healthy (systemd starts this)",
		Long: `Run the stack and keep it healthy.

Without --stack it runs the release that is committed: the one on the factory
partition, verified against the certificates in the sealed root, or one that was
installed since, verified against the root of trust there. With --stack it runs a Compose file on any
Linux host with Docker 25 or newer, whose images must be in the engine and are
pinned by the file itself, by --lock or by --images. There, budgets for memory,
processors and processes are enforced; those for disk are only observed.

Containers keep running when the daemon ends; the next one adopts them.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runDaemon(c, o, d) },
	}
	f := c.Flags()
	f.StringVar(&d.engine, "engine", "unix:///run/docker.sock", "address of the Docker engine")
	f.StringVar(&d.state, "state", "/var/lib/holdfast", "folder for what must survive a reboot")
	f.StringVar(&d.run, "run", "/run/holdfast", "folder for what a reboot may empty")
	f.StringVar(&d.data, "data", "", "folder of the services' data, where secrets are kept (default STATE/data)")
	f.StringVar(&d.factory, "factory", "/run/holdfast/factory", "where the factory partition is mounted")
	f.StringVar(&d.trust, "trust", "/usr/lib/holdfast/trust", "folder of the certificates releases are trusted by")
	f.StringVar(&d.stack, "stack", "", "Compose file to run instead of the factory's release")
	f.StringVar(&d.lock, "lock", "", "with --stack: the lock that pins its images")
	f.StringArrayVar(&d.images, "images", nil, "with --stack: REF=sha256:DIGEST, a pin; may be repeated")
	f.StringVar(&d.size, "size", "", "size profile of the stack (XS, S, M, L or XL) in place of the configuration's; auto is the machine's own")
	f.StringVar(&d.metrics.Listen, "metrics-listen", "", "serve metrics on ADDRESS:PORT; a box takes it from its configuration, elsewhere there are none without it")
	f.StringVar(&d.metrics.WebConfig, "metrics-web-config", "", "with --metrics-listen: file with certificate and users, in the format of exporter-toolkit")
	f.BoolVar(&d.metrics.ContainerNames, "metrics-container-names", false, "serve the container metrics also under the names that cAdvisor gives them")
	c.MarkFlagsMutuallyExclusive("lock", "images")
	return c
}

// finder checks the options that say what to run.
func (d *daemonOptions) finder() (daemon.Finder, error) {
	if d.stack == "" {
		if d.lock != "" || len(d.images) > 0 {
			return nil, exit(ExitUsage, "--lock and --images go with --stack; without it the factory's release says all")
		}
		return daemon.Factory{Dir: d.factory, Trust: d.trust, Stacks: filepath.Join(d.state, "stacks"), Kept: filepath.Join(d.state, "release"),
			Fetch: fetchOptions("", d.state, d.data)}, nil
	}
	f := daemon.File{Path: d.stack, Lock: d.lock}
	for _, i := range d.images {
		ref, digest, ok := strings.Cut(i, "=")
		if !ok || !strings.HasPrefix(digest, "sha256:") {
			return nil, exit(ExitUsage, "--images %q is not REF=sha256:DIGEST", i)
		}
		if f.Digests == nil {
			f.Digests = map[string]string{}
		}
		f.Digests[ref] = digest
	}
	return f, nil
}

func runDaemon(c *cobra.Command, o *options, d *daemonOptions) error {
	if d.data == "" {
		d.data = filepath.Join(d.state, "data")
	}
	if d.metrics.WebConfig != "" && d.metrics.Listen == "" {
		return exit(ExitUsage, "--metrics-web-config goes with --metrics-listen")
	}
	if d.size != "" && d.size != "auto" {
		if _, err := budget.SizeOf(d.size); err != nil {
			return exit(ExitUsage, "--size: %v", err)
		}
	}
	find, err := d.finder()
	if err != nil {
		return err
	}
	e, err := engine.Open(d.engine)
	if err != nil {
		return exit(ExitUsage, "%v", err)
	}
	defer e.Close()
	watchdog, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return err
	}
	var place daemon.Place
	// Only a box is configured where it lands.
	if f, _ := facts.Read(""); d.stack == "" && f.Sealed {
		place = daemon.Here{}
	}
	var upgrades *daemon.Upgrades
	root := filepath.Join(d.trust, "root.json")
	if place != nil {
		upgrades = &daemon.Upgrades{Root: root, Engine: "/usr/lib/holdfast/engine", Proxy: fetchOptions("", d.state, d.data).Proxy}
	}
	return daemon.New(daemon.Config{
		Upgrades: upgrades, Installed: func(digest string) daemon.Finder {
			return daemon.Installed{Digest: digest, State: d.state, Root: root, Factory: d.factory}
		},
		Place: place, Size: d.size, Metrics: d.metrics, Version: version(),
		Engine: e, Socket: o.socket, State: d.state, Run: d.run, Data: d.data, Find: find, AnyHost: d.stack != "", Console: o.io.Err,
		// An unsent notification is systemd's to notice.
		Notify:     func(s string) { sd.SdNotify(false, s) },
		AliveEvery: min(watchdog/2, time.Minute),
	}).Run(c.Context())
}

// version is this program's, as far as its build knows.
func version() string {
	b, ok := debug.ReadBuildInfo()
	if !ok || b.Main.Version == "" {
		return "(devel)"
	}
	return b.Main.Version
}
