// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestOneContainer(t *testing.T) {
	s := &script{answers: map[string]string{
		"GET /containers/a/json": `{"Id":"a","Name":"/demo-db-1","State":{"Status":"running"},
			"HostConfig":{"Memory":1024,"NanoCpus":5,"PidsLimit":-1,"RestartPolicy":{"Name":"no"}}}`,
		"GET /containers/json": `[{"Id":"a","Names":["/demo-db-1"],"Labels":{"com.docker.compose.project":"demo"},"Ports":[{"PrivatePort":80,"Type":"tcp"}]},
			{"Id":"b","Names":["/other"],"Ports":[{"PrivatePort":80,"PublicPort":8080,"Type":"tcp","IP":"0.0.0.0"}]}, {"Id":"c"}]`,
		"POST /containers/a/rename": "204 ",
		"POST /containers/a/update": `{"Warnings":[]}`,
		"POST /containers/a/wait":   `{"StatusCode":3}`,
		"POST /containers/b/wait":   `{"StatusCode":0,"Error":{"Message":"it went wrong"}}`,
	}}
	d := engineOf(t, s)
	c, err := d.Container(t.Context(), "a")
	if err != nil || c.Name != "demo-db-1" || c.Limits != (Limits{Memory: 1024, NanoCPUs: 5}) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := d.Container(t.Context(), "gone"); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that is gone: %v", err)
	}
	hs, err := d.Holders(t.Context())
	if got := fmt.Sprint(hs); err != nil || got != "[{a demo-db-1 demo []} {b other  [8080/tcp]} {c   []}]" {
		t.Errorf("%s, %v", got, err)
	}
	if err := d.Rename(t.Context(), "a", "demo-web-1"); err != nil || !strings.HasSuffix(s.last(), "rename?name=demo-web-1") {
		t.Errorf("%s, %v", s.last(), err)
	}
	if err := d.Update(t.Context(), "a", Limits{Memory: 7}); err != nil {
		t.Error(err)
	}
	for _, want := range []string{`"Memory":7`, `"PidsLimit":0`, `"Name":"no"`} {
		if !strings.Contains(s.body, want) {
			t.Errorf("update says %s, want %s in it", s.body, want)
		}
	}
	if code, err := d.Wait(t.Context(), "a"); code != 3 || err != nil {
		t.Errorf("wait: %d, %v", code, err)
	}
	if _, err := d.Wait(t.Context(), "b"); err == nil || !strings.Contains(err.Error(), "it went wrong") {
		t.Errorf("wait: %v", err)
	}
	if _, err := d.Wait(t.Context(), "gone"); !errors.Is(err, ErrNotFound) {
		t.Errorf("wait for one that is gone: %v", err)
	}
}

func TestReaches(t *testing.T) {
	a := Limits{Memory: 1, Pids: 5, Restart: "always"}
	for _, c := range []struct {
		from, to Limits
		want     bool
	}{
		{a, a, true}, {a, Limits{Memory: 2}, true}, {a, Limits{}, false}, {Limits{CpusetCpus: "0"}, Limits{}, false},
		{Limits{}, Limits{CPUShares: 1, NanoCPUs: 1, CPUPeriod: 1, CPUQuota: 1, CpusetCpus: "1", CpusetMems: "0", Memory: 1, MemorySwap: 2,
			MemoryReservation: 1, Pids: 1, BlkioWeight: 10, Restart: "always", RestartMax: 1}, true},
	} {
		if got := c.from.Reaches(c.to); got != c.want {
			t.Errorf("%+v to %+v: %t", c.from, c.to, got)
		}
	}
}
