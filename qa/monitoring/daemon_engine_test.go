// SPDX-License-Identifier: Apache-2.0

//go:build engine

package monitoring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/daemon"
	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/qa/dockerd"
	"github.com/holdfast/holdfast/qa/monitoring/prom"
)

func TestMain(m *testing.M) {
	dockerd.Init() // does not return in the engine's own process
	os.Exit(m.Run())
}

const standin = "holdfast.test/standin:1.0.0"

// dockerEngine starts an engine that has the stand-in's image.
func dockerEngine(t *testing.T) (host, digest, base string) {
	t.Helper()
	// Not TMPDIR: overlay file systems refuse some of what may be mounted there.
	base, err := os.MkdirTemp("/var/tmp", "holdfast-monitoring-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	root, err := dockerd.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(root)
	program := filepath.Join(base, "standin")
	if err := dockerd.Build("./qa/standin", program); err != nil {
		t.Fatal(err)
	}
	image, err := dockerd.StandinImage(program, "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	h, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	d, err := dockerd.Start(os.Getenv("HOLDFAST_TOOLS"), base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Stop)
	cli, err := engine.Open(d.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	r, w := io.Pipe()
	go func() { w.CloseWithError(dockerd.OCITar(w, t.TempDir(), standin, image)) }()
	if err := cli.LoadImage(t.Context(), r, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	return d.Host, h.String(), base
}

// One service that is well, one that has ended for good, one that keeps
// failing.
const threeServices = `
name: watched
services:
  web:
    image: "holdfast.test/standin:1.0.0"
    command: [serve]
    restart: always
    environment: {STANDIN_DO: "cpu 1"}
    volumes: ["data:/data"]
    mem_limit: 64m
    cpus: 0.5
    pids_limit: 50
  migrate: {image: "holdfast.test/standin:1.0.0", command: [once], restart: "no"}
  broken: {image: "holdfast.test/standin:1.0.0", command: [once, --code, "3"], restart: always}
volumes: {data: {x-holdfast: {disk: 1GiB}}}
`

// runDaemon runs the supervisor with metrics on a free port, until stop is
// called or the test ends, and returns that port's address.
func runDaemon(t *testing.T, host, digest, base string) (address string, stop func()) {
	t.Helper()
	dir := filepath.Join(base, "box")
	stack := filepath.Join(dir, "stack", "compose.yaml")
	if err := os.MkdirAll(filepath.Dir(stack), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stack, []byte(threeServices), 0o644); err != nil {
		t.Fatal(err)
	}
	cli, err := engine.Open(host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	d := daemon.New(daemon.Config{
		Engine: cli, Socket: filepath.Join(dir, "api.sock"), State: filepath.Join(dir, "state"), Run: filepath.Join(dir, "run"), Data: filepath.Join(dir, "state", "data"),
		Find: daemon.File{Path: stack, Digests: map[string]string{standin: digest}}, AnyHost: true, Console: t.Output(), Version: "0.1.0",
		Metrics: daemon.Metrics{Listen: address, ContainerNames: true},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the daemon ended with %v", err)
		}
	})
	t.Cleanup(stop)
	return address, stop
}

// The whole chain: containers of a real engine, the supervisor, its exporter,
// a real Prometheus with the rules.
func TestPrometheusScrapesADaemon(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	host, digest, base := dockerEngine(t)
	// What volumes hold is measured at the start of the daemon, so there must
	// be one that has made them.
	address, stop := runDaemon(t, host, digest, base)
	t.Chdir(here)
	first := scraping(t, address)
	if err := eventually(t, first, `holdfast_service_ready{service="web"} == 1`); err != nil {
		t.Fatal(err)
	}
	stop()
	address, _ = runDaemon(t, host, digest, base)
	s := scraping(t, address)
	// Each line is one thing that must be so before long.
	for _, expr := range []string{
		`holdfast_service_ready{service="web"} == 1`,
		`holdfast_service_state{service="migrate", state="completed"} == 1`,
		`holdfast_service_restarts_total{service="broken", reason="exit"} >= 2`,
		`holdfast_service_failures{service="broken"} >= 2`,
		`holdfast_service_memory_limit_bytes{service="web"} == 64 * 1024 * 1024`,
		`holdfast_service_memory_working_set_bytes{service="web"} > 0`,
		`holdfast_service_cpu_limit_cores{service="web"} == 0.5`,
		`rate(holdfast_service_cpu_seconds_total{service="web"}[1m]) >= 0`,
		`holdfast_service_pids{service="web"} > 0`,
		`container_memory_working_set_bytes{name="watched-web-1"} > 0`,
		`holdfast_engine_up == 1`,
		`holdfast_budget_admitted == 1`,
		`holdfast_budget_memory_bytes{share="node"} == on () holdfast_node_memory_bytes`,
		`holdfast_scrape_usage_success == 1`,
		`increase(holdfast_reconcile_duration_seconds_count[1m]) > 0`,
	} {
		if err := eventually(t, s, expr); err != nil {
			t.Error(err)
		}
	}
	check(t, s, address)
	// A host of somebody's own has no other releases.
	panels(t, s, address, "holdfast_upgrade_")
	if found, err := s.Query(t.Context(), `max(count by (service) ({service!=""})) > 60`, time.Now()); err != nil || len(found) > 0 {
		t.Errorf("series of the widest service: %v, %v", found, err)
	}
}

func eventually(t *testing.T, s *prom.Server, expr string) error {
	return s.Until(t.Context(), expr, func() error {
		found, err := s.Query(t.Context(), expr, time.Now())
		if err == nil && len(found) == 0 {
			name := expr[:strings.IndexAny(expr+" ", " {")]
			if i := strings.IndexByte(name, '('); i >= 0 {
				name = name[i+1:]
			}
			now, _ := s.Query(t.Context(), name, time.Now())
			err = fmt.Errorf("now it is %v", now)
		}
		return err
	})
}
