// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"time"
)

// Role is what a stand-in is, in the words of qa/standin's environment.
type Role struct {
	// Ports are what it serves: "http:3080:/healthz|/ready,tcp:5432".
	Ports string
	// Once makes it a one-shot.
	Once bool
	// Startup is the time before it serves, or a one-shot ends.
	Startup time.Duration
}

func (r Role) env() []string {
	out := []string{"STANDIN_PORTS=" + r.Ports}
	if r.Once {
		out = append(out, "STANDIN_ONCE=1")
	}
	if r.Startup > 0 {
		out = append(out, "STANDIN_STARTUP="+r.Startup.String())
	}
	return out
}

// known are the roles of the images of the Sourcegraph stack, by name: the
// ports that the published stacks use, and the paths that their and our checks
// ask for. The start-ups keep the order of the real ones and a little of
// their length: a database that recovers, a front end that looks at its
// schemas.
var known = map[string]Role{
	"migrator":                    {Once: true, Startup: 300 * time.Millisecond},
	"caddy":                       {Ports: "http:80:/,tcp:443,http:2020:/"},
	"frontend":                    {Ports: "http:3080:/healthz|/,tcp:3090,http:6060:/healthz|/ready|/metrics", Startup: 300 * time.Millisecond},
	"gitserver":                   {Ports: "tcp:3178,http:6060:/metrics"},
	"search-indexer":              {Ports: "http:6072:/|/metrics"},
	"indexed-searcher":            {Ports: "http:6070:/healthz|/metrics"},
	"searcher":                    {Ports: "http:3181:/healthz,http:6060:/metrics"},
	"precise-code-intel-worker":   {Ports: "http:3188:/healthz,http:6060:/metrics"},
	"worker":                      {Ports: "http:3189:/healthz,http:6060:/metrics,http:6996:/metrics"},
	"syntactic-code-intel-worker": {Ports: "http:3288:/healthz,http:6060:/metrics"},
	"syntax-highlighter":          {Ports: "http:9238:/health,http:6060:/metrics"},
	"prometheus":                  {Ports: "http:9090:/-/ready|/-/healthy"},
	"grafana":                     {Ports: "http:3370:/api/health|/"},
	"cadvisor":                    {Ports: "http:48080:/healthz|/metrics"},
	"node-exporter":               {Ports: "http:9100:/|/metrics"},
	"postgresql-16":               {Ports: "tcp:5432", Startup: 300 * time.Millisecond},
	"postgresql-16-codeinsights":  {Ports: "tcp:5432", Startup: 300 * time.Millisecond},
	"postgres_exporter":           {Ports: "http:9187:/|/metrics"},
	"blobstore":                   {Ports: "http:9000:/"},
	"redis-cache":                 {Ports: "tcp:6379,http:9121:/metrics"},
	"redis-store":                 {Ports: "tcp:6379,http:9121:/metrics"},
	"opentelemetry-collector":     {Ports: "tcp:4317,tcp:4318,http:8888:/metrics,http:13133:/"},
}

// RoleOf is the role of an image of the stacks we ship.
func RoleOf(ref string) (Role, error) {
	r, ok := known[name(ref)]
	if !ok {
		return r, fmt.Errorf("%s has no stand-in: add its role to qa/standin/image/role.go", ref)
	}
	return r, nil
}
