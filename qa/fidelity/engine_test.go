// SPDX-License-Identifier: Apache-2.0

//go:build engine

package fidelity

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// asking is the engine's API as plain JSON: the comparison must see what the
// engine says, and not what a client's types keep of it.
type asking struct {
	t   *testing.T
	cli *http.Client
}

func ask(t *testing.T) *asking {
	socket := strings.TrimPrefix(host, "unix://")
	return &asking{t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}}
}

// do sends a request and decodes the answer.
func (a *asking) do(method, path string, into any) {
	a.t.Helper()
	// Not the test's own context: that has ended when it cleans up.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://engine/v1.44"+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	res, err := a.cli.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
}

type listed struct {
	ID     string `json:"Id"`
	Names  []string
	Name   string
	Labels map[string]string
}

func (a *asking) list(what, project string) []listed {
	a.t.Helper()
	filter := "?filters=" + url.QueryEscape(`{"label":["com.docker.compose.project=`+project+`"]}`)
	switch what {
	case "containers":
		what, filter = "containers/json", filter+"&all=1"
	case "volumes":
		var out struct{ Volumes []listed }
		a.do("GET", "/volumes"+filter, &out)
		return out.Volumes
	}
	var out []listed
	a.do("GET", "/"+what+filter, &out)
	return out
}

// look describes all things of a project, without ids, times and addresses.
func (a *asking) look(project string) Things {
	a.t.Helper()
	ids := map[string]string{}
	docs := Things{}
	add := func(kind, key, path string, l listed) {
		var doc map[string]any
		a.do("GET", path, &doc)
		name := kind + " " + l.Labels[key]
		if l.ID != "" {
			ids[l.ID] = "<" + name + ">"
		}
		docs[name] = doc
		mounts, _ := doc["Mounts"].([]any)
		for _, m := range mounts {
			m, _ := m.(map[string]any)
			if id, _ := m["Name"].(string); hex64.MatchString(id) {
				ids[id] = fmt.Sprintf("<anonymous volume at %v>", m["Destination"])
			}
		}
	}
	for _, c := range a.list("containers", project) {
		add("container", "com.docker.compose.service", "/containers/"+c.ID+"/json", c)
	}
	for _, n := range a.list("networks", project) {
		add("network", "com.docker.compose.network", "/networks/"+n.ID, n)
	}
	for _, v := range a.list("volumes", project) {
		add("volume", "com.docker.compose.volume", "/volumes/"+v.Name, v)
	}
	// References by name mean the same as those by id.
	for name, doc := range docs {
		if kind, _, _ := strings.Cut(name, " "); kind == "container" {
			if n, _ := doc["Name"].(string); n != "" {
				for _, mode := range []string{"NetworkMode", "IpcMode", "PidMode"} {
					byName(doc, mode, docs)
				}
			}
		}
	}
	out := Things{}
	for name, doc := range docs {
		out[name] = Normalise(doc, ids)
	}
	return out
}

// byName puts the id of a container into a reference that has its name, for
// the normaliser to take it out again.
func byName(doc map[string]any, key string, docs Things) {
	hc, _ := doc["HostConfig"].(map[string]any)
	byID := func(ref string) string {
		for _, other := range docs {
			if name, _ := other["Name"].(string); name != "" && ref == strings.TrimPrefix(name, "/") {
				id, _ := other["Id"].(string)
				return id
			}
		}
		return ref
	}
	if mode, _ := hc[key].(string); strings.HasPrefix(mode, "container:") {
		hc[key] = "container:" + byID(strings.TrimPrefix(mode, "container:"))
	}
	list, _ := hc["VolumesFrom"].([]any)
	for i, v := range list {
		name, mode, ok := strings.Cut(fmt.Sprint(v), ":")
		list[i] = byID(name)
		if ok {
			list[i] = byID(name) + ":" + mode
		}
	}
}

// remove deletes all things of a project.
func (a *asking) remove(project string) {
	a.t.Helper()
	for _, c := range a.list("containers", project) {
		a.do("DELETE", "/containers/"+c.ID+"?force=1&v=1", nil)
	}
	for _, n := range a.list("networks", project) {
		a.do("DELETE", "/networks/"+n.ID, nil)
	}
	for _, v := range a.list("volumes", project) {
		a.do("DELETE", "/volumes/"+v.Name, nil)
	}
}
