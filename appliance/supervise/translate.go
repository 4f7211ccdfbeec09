// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/stack"
)

// ComposeVersion is the value of the version label. `docker compose` shows
// it and does not judge it.
const ComposeVersion = "holdfast"

// defaultGrace is Compose's and the engine's grace of a stop.
const defaultGrace = 10 * time.Second

// Options of Translate.
type Options struct {
	// Generation is the number one-shots count by.
	Generation int
	// FilesDir is where files with an owner, a mode or inline content are
	// written.
	FilesDir string
	// SecretFiles maps the secrets made on the box to their files.
	SecretFiles map[string]string
	// ReadFile is os.ReadFile where nil; file contents enter the hash.
	ReadFile func(string) ([]byte, error)
	// Budget gives the services their shares of the machine; nil leaves the
	// limits of the Compose file.
	Budget *budget.Budget
	// Extensions is the stack's x-holdfast by service.
	Extensions map[string]stack.Extension
	// Slices puts containers into the slice of their class (SliceOf). Only
	// an engine that uses systemd's control groups can do that.
	Slices bool
}

// Translate makes the desired state of a checked project whose images are
// NAME@DIGEST. order is the services' start order. It refuses keys that would
// else be ignored; the error names service and key.
func Translate(p *types.Project, order []string, o Options) (*Desired, error) {
	if o.ReadFile == nil {
		o.ReadFile = os.ReadFile
	}
	d := &Desired{Project: p.Name, Generation: o.Generation}
	if err := shared(p, d); err != nil {
		return nil, err
	}
	completes := map[string]bool{}
	for _, s := range p.Services {
		for name, dep := range s.DependsOn {
			if dep.Condition == Completed {
				completes[name] = true
			}
		}
	}
	for _, name := range order {
		s, ok := p.Services[name]
		if !ok {
			return nil, fmt.Errorf("service %s is in the start order and not in the project", name)
		}
		if s.GetScale() == 0 {
			continue
		}
		t := &translation{p: p, s: s, o: o, d: d, oneShot: completes[name]}
		svc, err := t.service()
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", name, err)
		}
		d.Services = append(d.Services, svc)
	}
	return d, nil
}

// translation is the work on one service.
type translation struct {
	p       *types.Project
	s       types.ServiceConfig
	o       Options
	d       *Desired
	oneShot bool
	// binds are the stack files whose bytes enter the hash.
	binds []string
}

func (t *translation) service() (Service, error) {
	s := t.s
	if err := t.refuse(); err != nil {
		return Service{}, err
	}
	svc := Service{
		Name: s.Name, Image: s.Image, Restart: t.restart(), Grace: defaultGrace,
		OneShot: t.oneShot || s.Restart == "no" && s.Deploy == nil,
	}
	if s.StopGracePeriod != nil {
		svc.Grace = time.Duration(*s.StopGracePeriod)
	}
	for name, dep := range s.DependsOn {
		if _, ok := t.p.Services[name]; !ok {
			continue // not required, and of a profile that is not enabled
		}
		c := dep.Condition
		if c == "" {
			c = Started
		}
		svc.DependsOn = append(svc.DependsOn, Dependency{Service: name, Condition: c, Required: dep.Required, Restart: dep.Restart})
	}
	slices.SortFunc(svc.DependsOn, func(a, b Dependency) int { return strings.Compare(a.Service, b.Service) })

	host, err := t.host()
	if err != nil {
		return svc, err
	}
	cfg, err := t.config()
	if err != nil {
		return svc, err
	}
	nets, err := t.networks(&host)
	if err != nil {
		return svc, err
	}
	svc.Update = t.update()
	t.extend(&svc)
	t.budget(&host)
	svc.Spec = engine.Spec{Name: t.containerName(s.Name), Config: cfg, Host: host, Networks: nets}
	if svc.Hooks, err = t.hooks(); err != nil {
		return svc, err
	}
	if svc.Hash, err = t.hash(svc.Spec, svc.Hooks.PreStart); err != nil {
		return svc, err
	}
	t.labels(&svc)
	return svc, nil
}

// containerName is docker compose's, so that its commands find it.
func (t *translation) containerName(service string) string {
	if s, ok := t.p.Services[service]; ok && s.ContainerName != "" {
		return s.ContainerName
	}
	return t.p.Name + "-" + service + "-1"
}

// refuse names the first key that cannot be honoured here. The list is
// checked again at bake time with line numbers; this is the last line.
func (t *translation) refuse() error {
	s := t.s
	for _, k := range []struct {
		key string
		set bool
	}{
		{"deploy.replicas above 1", s.GetScale() > 1},
		{"build", s.Build != nil && s.Image == ""},
		{"external_links", len(s.ExternalLinks) > 0},
		{"credential_spec", s.CredentialSpec != nil},
		{"provider", s.Provider != nil},
		{"use_api_socket", s.UseAPISocket},
		{"models", len(s.Models) > 0},
		{"gpus", len(s.Gpus) > 0},
	} {
		if k.set {
			return fmt.Errorf("%s cannot be honoured on a box: remove it from the stack", k.key)
		}
	}
	images := []string{s.Image}
	for _, h := range s.PreStart {
		images = append(images, h.Image)
	}
	for _, image := range images {
		if !strings.Contains(image, "@sha256:") {
			return fmt.Errorf("image %q is not pinned to a digest: lock the stack", image)
		}
	}
	return nil
}

// restart is the policy of the Compose file. Where a file says nothing, a
// service is kept running: an appliance has nobody who would start it again.
// A one-shot that says nothing is tried again when it fails.
func (t *translation) restart() Restart {
	r := Restart{Mode: t.s.Restart}
	if m, n, ok := strings.Cut(r.Mode, ":"); ok {
		r.Mode = m
		fmt.Sscanf(n, "%d", &r.Max) // compose-go has checked the number
	}
	if d := t.s.Deploy; d != nil && d.RestartPolicy != nil && r.Mode == "" {
		rp := d.RestartPolicy
		switch rp.Condition {
		case "none":
			r.Mode = "no"
		case "on-failure":
			r.Mode = "on-failure"
		default:
			r.Mode = "always"
		}
		if rp.Delay != nil {
			r.Delay = time.Duration(*rp.Delay)
		}
		if rp.Window != nil {
			r.Window = time.Duration(*rp.Window)
		}
		if rp.MaxAttempts != nil {
			r.Max = int(*rp.MaxAttempts)
		}
	}
	if r.Mode == "" {
		r.Mode = "always"
		if t.oneShot {
			r.Mode = "on-failure"
		}
	}
	return r
}

// update is the order of deploy.update_config. The stack's check has refused
// start-first where two containers of the service cannot be at once.
func (t *translation) update() string {
	if d := t.s.Deploy; d != nil && d.UpdateConfig != nil && d.UpdateConfig.Order == StartFirst {
		return StartFirst
	}
	return StopFirst
}

func (t *translation) config() (container.Config, error) {
	s := t.s
	c := container.Config{
		// Compose attaches, so that the first line of a service is in its log.
		AttachStdout: true, AttachStderr: true,
		Hostname: s.Hostname, Domainname: s.DomainName, User: s.User, Image: s.Image,
		WorkingDir: s.WorkingDir, StopSignal: s.StopSignal, Tty: s.Tty, OpenStdin: s.StdinOpen,
		Cmd: s.Command, Entrypoint: s.Entrypoint,
		Healthcheck: health(s.HealthCheck), ExposedPorts: network.PortSet{},
	}
	if s.StopGracePeriod != nil {
		// Whole seconds, cut off as Compose does. The supervisor's own stops
		// name their grace, rounded up.
		n := int(time.Duration(*s.StopGracePeriod).Seconds())
		c.StopTimeout = &n
	}
	c.Env = env(s.Environment)
	for _, e := range s.Expose {
		r, err := network.ParsePortRange(e)
		if err != nil {
			return c, fmt.Errorf("expose %q: %w", e, err)
		}
		for p := range r.All() {
			c.ExposedPorts[p] = struct{}{}
		}
	}
	for _, pc := range s.Ports {
		p, _, err := port(pc)
		if err != nil {
			return c, err
		}
		c.ExposedPorts[p] = struct{}{}
	}
	return c, nil
}

// env is an environment as the engine takes it, sorted.
func env(m types.MappingWithEquals) []string {
	var out []string
	for k, v := range m {
		if v != nil {
			k += "=" + *v
		}
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// health translates a health check; zero values inherit the image's.
func health(h *types.HealthCheckConfig) *container.HealthConfig {
	if h == nil {
		return nil
	}
	d := func(p *types.Duration) time.Duration {
		if p == nil {
			return 0
		}
		return time.Duration(*p)
	}
	c := &container.HealthConfig{
		Test: h.Test, Interval: d(h.Interval), Timeout: d(h.Timeout),
		StartPeriod: d(h.StartPeriod), StartInterval: d(h.StartInterval),
	}
	if h.Retries != nil {
		c.Retries = int(*h.Retries)
	}
	if h.Disable {
		c.Test = []string{"NONE"}
	}
	return c
}
