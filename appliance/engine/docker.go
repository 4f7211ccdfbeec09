// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
)

// Deadlines of the calls. A start waits for the image's unpacked layers and
// the network; a remove for the deletion of a writable layer.
const (
	askTimeout    = 30 * time.Second
	createTimeout = 2 * time.Minute
	startTimeout  = 2 * time.Minute
	removeTimeout = 2 * time.Minute
	// stopSlack comes on top of the service's own grace.
	stopSlack = 30 * time.Second
)

// ProjectLabel is the label docker compose finds a project's things by.
const ProjectLabel = "com.docker.compose.project"

// ServiceLabel names the service of a container.
const ServiceLabel = "com.docker.compose.service"

// Docker talks to one engine over its socket.
type Docker struct{ cli *client.Client }

// Open prepares a client for the engine at host, e.g. "unix:///run/docker.sock".
// It does not connect: an engine that is away is an error of the first call.
func Open(host string) (*Docker, error) {
	cli, err := client.New(client.WithHost(host), client.WithUserAgent("holdfast"))
	if err != nil {
		return nil, fmt.Errorf("engine address %q: %w (want unix:///path/to/docker.sock)", host, err)
	}
	return &Docker{cli: cli}, nil
}

// Close releases idle connections.
func (d *Docker) Close() error { return d.cli.Close() }

// Ping asks whether the engine answers and speaks MinAPI or newer.
func (d *Docker) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	p, err := d.cli.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil {
		return wrap("ping", err)
	}
	if p.APIVersion != "" && versions.LessThan(p.APIVersion, MinAPI) {
		return fmt.Errorf("the Docker engine speaks API %s and %s is needed: install Docker 25 or newer", p.APIVersion, MinAPI)
	}
	return nil
}

func projectFilter(project string) client.Filters {
	return make(client.Filters).Add("label", ProjectLabel+"="+project)
}

// Containers lists the project's containers in every state, without one-off
// containers (docker compose run).
func (d *Docker) Containers(ctx context.Context, project string) ([]Container, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	f := projectFilter(project).Add("label", "com.docker.compose.oneoff=False")
	l, err := d.cli.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: f})
	if err != nil {
		return nil, wrap("list containers", err)
	}
	out := make([]Container, 0, len(l.Items))
	for _, it := range l.Items {
		r, err := d.cli.ContainerInspect(ctx, it.ID, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) {
			continue // removed between the two calls
		}
		if err != nil {
			return nil, wrap("inspect container "+it.ID, err)
		}
		out = append(out, fromInspect(r.Container))
	}
	return out, nil
}

func fromInspect(r container.InspectResponse) Container {
	c := Container{ID: r.ID, Name: strings.TrimPrefix(r.Name, "/"), Health: "none", Volumes: map[string]string{}}
	if r.Config != nil {
		c.Labels, c.Image = r.Config.Labels, r.Config.Image
	}
	for _, m := range r.Mounts {
		if m.Type == "volume" {
			c.Volumes[m.Destination] = m.Name
		}
	}
	c.IPs, c.SharesNetwork = addresses(r)
	c.Limits = limits(r.HostConfig)
	s := r.State
	if s == nil {
		return c
	}
	c.State, c.ExitCode, c.OOMKilled, c.Error = string(s.Status), s.ExitCode, s.OOMKilled, s.Error
	c.Started, c.Finished = parseTime(s.StartedAt), parseTime(s.FinishedAt)
	if s.Health != nil && s.Health.Status != "" {
		c.Health = string(s.Health.Status)
		for i := len(s.Health.Log) - 1; i >= 0; i-- {
			if l := s.Health.Log[i]; l != nil && l.ExitCode != 0 {
				c.HealthLog = shorten(l.Output)
				break
			}
		}
	}
	return c
}

// parseTime reads the engine's times; its "never" (year 1) is the zero time.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// shorten keeps the last line of a check's output: one sentence of a status.
func shorten(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	if len(s) > 200 {
		s = s[:200]
	}
	return strings.ToValidUTF8(s, "?")
}

// Networks lists the names of the networks that exist, by the project's label
// or, for external ones, by name.
func (d *Docker) Networks(ctx context.Context, project string) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	l, err := d.cli.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return nil, wrap("list networks", err)
	}
	out := map[string]bool{}
	for _, n := range l.Items {
		out[n.Name] = true
	}
	return out, nil
}

// Volumes lists the names of the volumes that exist.
func (d *Docker) Volumes(ctx context.Context, project string) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	l, err := d.cli.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return nil, wrap("list volumes", err)
	}
	out := map[string]bool{}
	for _, v := range l.Items {
		out[v.Name] = true
	}
	return out, nil
}

// Events streams what happens to the project's containers until ctx ends or
// the engine goes away; then the error channel gets one value and the stream
// is over. The subscription stands when Events returns.
func (d *Docker) Events(ctx context.Context, project string) (<-chan Event, <-chan error) {
	f := projectFilter(project).Add("type", string(events.ContainerEventType))
	r := d.cli.Events(ctx, client.EventsListOptions{Filters: f})
	out, errs := make(chan Event), make(chan error, 1)
	go func() {
		for {
			select {
			case m := <-r.Messages:
				if strings.HasPrefix(string(m.Action), "exec_") {
					continue // health checks: their outcome is health_status
				}
				e := Event{
					Action: string(m.Action), Container: m.Actor.ID,
					Service: m.Actor.Attributes[ServiceLabel],
					Signal:  m.Actor.Attributes["signal"], Time: time.Unix(0, m.TimeNano),
				}
				select {
				case out <- e:
				case <-ctx.Done():
					errs <- ctx.Err()
					return
				}
			case err := <-r.Err:
				if err == nil {
					err = io.ErrUnexpectedEOF
				}
				errs <- wrap("events", err)
				return
			}
		}
	}()
	return out, errs
}

// CreateNetwork makes a network; one of that name that exists is no error.
func (d *Docker) CreateNetwork(ctx context.Context, n Network) error {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	_, err := d.cli.NetworkCreate(ctx, n.Name, client.NetworkCreateOptions{
		Driver: n.Driver, Options: n.Options, Internal: n.Internal, Attachable: n.Attachable,
		EnableIPv4: n.IPv4, EnableIPv6: n.IPv6, IPAM: n.IPAM, Labels: n.Labels,
	})
	if errdefs.IsConflict(err) {
		return nil
	}
	return wrap("create network "+n.Name, err)
}

// CreateVolume makes a volume; the engine returns the one that exists.
func (d *Docker) CreateVolume(ctx context.Context, v Volume) error {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	_, err := d.cli.VolumeCreate(ctx, client.VolumeCreateOptions{Name: v.Name, Driver: v.Driver, DriverOpts: v.Options, Labels: v.Labels})
	return wrap("create volume "+v.Name, err)
}

// Create makes a container and returns its id; it does not start it.
func (d *Docker) Create(ctx context.Context, s Spec) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	r, err := d.cli.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: s.Name, Config: &s.Config, HostConfig: &s.Host,
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: s.Networks},
	})
	return r.ID, wrap("create container "+s.Name, err)
}

// Start starts a container; one that runs is no error.
func (d *Docker) Start(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err := d.cli.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return wrap("start", err)
}

// Stop asks a container to end and kills it after grace.
func (d *Docker) Stop(ctx context.Context, id string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+stopSlack)
	defer cancel()
	_, err := d.cli.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: seconds(grace)})
	return wrap("stop", err)
}

// Restart is Stop and Start as one act of the engine.
func (d *Docker) Restart(ctx context.Context, id string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+stopSlack+startTimeout)
	defer cancel()
	_, err := d.cli.ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: seconds(grace)})
	return wrap("restart", err)
}

// seconds rounds up: the engine counts whole seconds, and 0 would kill at once.
func seconds(d time.Duration) *int {
	n := int((d + time.Second - 1) / time.Second)
	return &n
}

// Remove deletes a stopped container and keeps its volumes.
func (d *Docker) Remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	_, err := d.cli.ContainerRemove(ctx, id, client.ContainerRemoveOptions{})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return wrap("remove", err)
}

// HasImage reports whether ref (NAME@DIGEST) resolves without a network.
func (d *Docker) HasImage(ctx context.Context, ref string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err := d.cli.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, wrap("inspect image "+ref, err)
}

// LoadImage streams an OCI-layout tar into the engine. The engine takes a tar
// only when it is complete: when r fails nothing is loaded and r's error is
// what comes back. limit bounds the whole load, unpacking included.
func (d *Docker) LoadImage(ctx context.Context, r io.Reader, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	src := &errReader{r: r}
	res, err := d.cli.ImageLoad(ctx, src, client.ImageLoadWithQuiet(true))
	if cause := src.cause(); cause != nil {
		return cause
	}
	if err != nil {
		return wrap("load image", err)
	}
	defer res.Close()
	// A load that fails after its header is a 200 with an error in the stream.
	dec := json.NewDecoder(io.LimitReader(res, 1<<20))
	for {
		var m struct {
			Error string `json:"error"`
		}
		switch err := dec.Decode(&m); {
		case src.cause() != nil:
			return src.cause()
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return wrap("load image", err)
		case m.Error != "":
			return fmt.Errorf("load image: the Docker engine says: %s", m.Error)
		}
	}
}

// errReader remembers why the source failed; the HTTP client only says that
// the request did.
type errReader struct {
	r   io.Reader
	err atomic.Pointer[error] // the transport reads in a goroutine of its own
}

func (e *errReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err.Store(&err)
	}
	return n, err
}

func (e *errReader) cause() error {
	if p := e.err.Load(); p != nil {
		return *p
	}
	return nil
}

// wrap names the call and sorts the error: unreachable, not found, other.
func wrap(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case client.IsErrConnectionFailed(err), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("%w (%s: %v)", ErrUnreachable, what, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w in time (%s)", ErrUnreachable, what)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%s: %w: %v", what, ErrNotFound, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
