// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

const (
	flavorName = "Metadata-Flavor"
	flavor     = "Google"
	gceBase    = "/computeMetadata/v1/instance/"
)

// GCE reads the metadata server of Compute Engine ("About VM metadata"): the
// instance's own attribute user-data. An error means that nothing was read.
func (c Client) GCE(ctx context.Context) (Answer, error) {
	ctx, s, cancel, err := c.open(ctx)
	if err != nil {
		return Answer{}, err
	}
	defer cancel()
	q := func(path string, limit int64) question {
		return question{method: http.MethodGet, path: gceBase + path, limit: limit,
			header: map[string]string{flavorName: flavor}, judge: fromGoogle}
	}
	a := Answer{UserData: itemOf(s.ask(ctx, q("attributes/user-data", c.Limit)))}
	if a.UserData.Err != nil {
		return Answer{}, a.UserData.Err
	}
	a.ID = s.fact(ctx, q("id", 0))
	a.Name = s.fact(ctx, q("name", 0))
	// "projects/123456789/zones/europe-west3-a"
	zone := s.fact(ctx, q("zone", 0))
	a.Zone = zone[strings.LastIndexByte(zone, '/')+1:]
	if i := strings.LastIndexByte(a.Zone, '-'); i > 0 {
		a.Region = a.Zone[:i]
	}
	return a, nil
}

func fromGoogle(h http.Header) error {
	if h.Get(flavorName) != flavor {
		return errors.New("the answer lacks Metadata-Flavor: Google, so it is not the metadata server's")
	}
	return nil
}
