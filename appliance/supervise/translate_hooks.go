// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/network"

	"github.com/holdfast/holdfast/appliance/engine"
)

// labelHook marks an init container and says which: "pre_start.0".
const labelHook = "com.docker.compose.hook"

// hooks translates pre_start, post_start and pre_stop.
func (t *translation) hooks() (Hooks, error) {
	var h Hooks
	for i, p := range t.s.PreStart {
		spec, err := t.preStart(i, p)
		if err != nil {
			return h, fmt.Errorf("pre_start %d: %w", i, err)
		}
		h.PreStart = append(h.PreStart, spec)
	}
	h.PostStart, h.PreStop = commands(t.s.PostStart), commands(t.s.PreStop)
	return h, nil
}

func commands(list []types.ServiceHook) []Hook {
	var out []Hook
	for _, h := range list {
		out = append(out, Hook{Command: h.Command, User: h.User, WorkingDir: h.WorkingDir, Env: env(h.Environment), Privileged: h.Privileged})
	}
	return out
}

// preStart is an init container: the hook's own specification, which
// compose-go has completed with the service's, and the service's volumes.
func (t *translation) preStart(i int, p types.PreStartHook) (engine.Spec, error) {
	s := types.ServiceConfig{Name: t.s.Name, ContainerSpec: p.ContainerSpec}
	// Not a second owner of the service's fixed addresses: the first
	// container, made and not started, holds no address yet, but two of one
	// name would answer for each other.
	s.Networks = map[string]*types.ServiceNetworkConfig{}
	for key, c := range p.Networks {
		s.Networks[key] = nil
		if c != nil {
			s.Networks[key] = &types.ServiceNetworkConfig{Priority: c.Priority, DriverOpts: c.DriverOpts}
		}
	}
	s.MacAddress, s.HealthCheck = "", nil
	h := &translation{p: t.p, s: s, o: t.o, d: t.d}
	spec := engine.Spec{Name: fmt.Sprintf("%s-%s-pre-start-%d", t.p.Name, t.s.Name, i)}
	var err error
	if spec.Host, err = h.host(); err != nil {
		return spec, err
	}
	h.budget(&spec.Host)
	if spec.Config, err = h.config(); err != nil {
		return spec, err
	}
	if spec.Networks, err = h.networks(&spec.Host); err != nil {
		return spec, err
	}
	for name, e := range spec.Networks {
		spec.Networks[name] = &network.EndpointSettings{DriverOpts: e.DriverOpts}
	}
	// The only way to share the anonymous volumes too.
	spec.Host.VolumesFrom = append(spec.Host.VolumesFrom, t.containerName(t.s.Name))
	_, digest, _ := strings.Cut(s.Image, "@")
	spec.Config.Labels = with(s.Labels,
		engine.ProjectLabel, t.p.Name,
		engine.ServiceLabel, t.s.Name,
		// Compose's word for a container that is none of the service's own.
		"com.docker.compose.oneoff", "True",
		"com.docker.compose.image", digest,
		"com.docker.compose.project.config_files", strings.Join(t.files(), ","),
		"com.docker.compose.project.working_dir", t.p.WorkingDir,
		"com.docker.compose.version", ComposeVersion,
		labelHook, fmt.Sprintf("pre_start.%d", i),
	)
	t.binds = append(t.binds, h.binds...)
	return spec, nil
}

// files are the Compose files' paths.
func (t *translation) files() []string {
	if len(t.p.ComposeFiles) > 0 {
		return t.p.ComposeFiles
	}
	return []string{filepath.Join(t.p.WorkingDir, "compose.yaml")}
}
