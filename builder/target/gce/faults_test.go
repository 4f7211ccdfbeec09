// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// Faults that pass: in the end there is the image, whole, and nothing else.
func TestFaultsThatPass(t *testing.T) {
	busy, gone, limited := fault{status: 503, reason: "backendError", message: "busy"}, fault{what: "cut"}, fault{status: 429, reason: "rateLimitExceeded", message: "slow down"}
	hang, lose, error500 := fault{what: "hang"}, fault{what: "lose"}, fault{status: 500, reason: "internalError", message: "oops"}
	quota := fault{status: 403, reason: "rateLimitExceeded", message: "Rate Limit Exceeded"}
	all := map[string][]fault{}
	for _, id := range []string{"compute.images.get", "compute.images.insert", "compute.globalOperations.get", "storage.objects.get", "storage.objects.delete", "compute.images.getIamPolicy", "compute.images.setIamPolicy"} {
		all[id+" busy"] = []fault{busy, error500, limited, gone}
		all[id+" lost answer"] = []fault{lose}
	}
	for _, id := range []string{"compute.images.get", "compute.images.insert", "compute.globalOperations.get"} {
		all[id+" quota"] = []fault{quota}
	}
	all["compute.images.insert hang"] = []fault{hang}
	all["storage.objects.get hang"] = []fault{hang}
	all["compute.images.setIamPolicy etag"] = []fault{{status: 412, reason: "conditionNotMet", message: "etag"}}
	all["begin busy"] = []fault{busy, limited}
	all["begin hang"] = []fault{hang}
	all["chunk busy"] = []fault{{}, busy, {}, error500, limited}
	all["chunk cut"] = []fault{{}, gone, {}, gone}
	all["chunk hang"] = []fault{{}, hang}
	all["chunk lost answer"] = []fault{{}, lose, lose}
	for name, faults := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, l := newCloud(t), &lines{}
			id, _, _ := strings.Cut(name, " ")
			c.faults[id] = faults
			u := c.upload()
			u.limits.attempt, u.limits.piece = 300*time.Millisecond, 300*time.Millisecond
			if !strings.Contains(name, "hang") {
				u.limits = short()
			}
			u.Members = []string{"user:jo@example.com"}
			if _, err := Run(t.Context(), Config{Dir: output(t, 1<<20), Upload: u}, l); err != nil {
				t.Fatal(err)
			}
			if c.left() != imageName || len(l.warns) > 0 {
				t.Errorf("left %q, warnings %q", c.left(), l.warns)
			}
			if left := c.faults[id]; len(left) > 0 {
				t.Errorf("%d faults were not met", len(left))
			}
		})
	}
}

// Faults that stay: one clear error, and nothing is left.
func TestFaultsThatStay(t *testing.T) {
	always := func(f fault) []fault { return slices.Repeat([]fault{f}, 1000) }
	denied := fault{status: 403, reason: "forbidden", message: "Required permission is missing"}
	for name, k := range map[string]struct {
		id     string
		faults []fault
		want   []string
	}{
		"no permission to look":   {"compute.images.get", always(denied), []string{"role Compute Storage Admin on the project my-project", "Google says: Required permission"}},
		"no permission to read":   {"storage.objects.get", always(denied), []string{"role Storage Object Admin on the bucket my-bucket"}},
		"no permission to upload": {"begin", always(denied), []string{"upload to gs://my-bucket/", "role Storage Object Admin"}},
		"no permission to make":   {"compute.images.insert", always(denied), []string{"make the image demo-1-0-0: no permission", "nothing is left in the cloud"}},
		"no permission to share":  {"compute.images.setIamPolicy", always(denied), []string{"share the image demo-1-0-0: no permission", "nothing is left in the cloud"}},
		"busy for ever":           {"compute.images.get", always(fault{status: 503, reason: "backendError", message: "busy"}), []string{"look for the image", "gave up after", "busy"}},
		"storage busy for ever":   {"chunk", always(fault{status: 503, message: "busy"}), []string{"upload to gs://", "503", "nothing is left in the cloud"}},
		"insert busy for ever":    {"compute.images.insert", always(fault{status: 503, message: "busy"}), []string{"make the image", "gave up", "look with `gcloud compute images describe"}},
		"hangs for ever":          {"compute.images.get", always(fault{what: "hang"}), []string{"look for the image", "gave up after"}},
		"no answer to operations": {"compute.globalOperations.get", always(fault{what: "cut"}), []string{"make the image", "gave up after", "left in the cloud"}},
		"refused as it is":        {"compute.images.insert", always(fault{status: 400, reason: "invalid", message: "Invalid value for field 'resource.family'"}), []string{"Google says: Invalid value for field", "nothing is left"}},
		"somebody took the name":  {"compute.images.insert", always(fault{status: 409, reason: "alreadyExists", message: "exists"}), []string{"has an image demo-1-0-0 already", "overwrite", "nothing is left"}},
		"object made meanwhile":   {"begin", always(fault{status: 412, reason: "conditionNotMet", message: "x"}), []string{"another one made gs://"}},
		"policy without end":      {"compute.images.setIamPolicy", always(fault{status: 412, message: "x"}), []string{"its policy is changed by somebody else", "nothing is left"}},
		"token refused later":     {"chunk", append(make([]fault, 2), fault{status: 401, message: "Invalid Credentials"}), []string{"credentials do not serve: Invalid Credentials", "nothing is left"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, l := newCloud(t), &lines{}
			c.faults[k.id] = k.faults
			u := c.upload()
			u.limits.attempt, u.limits.piece, u.limits.retry = 400*time.Millisecond, 400*time.Millisecond, time.Second
			u.Members = []string{"user:jo@example.com"}
			_, err := Run(t.Context(), Config{Dir: output(t, 1<<20), Upload: u}, l)
			check(t, err, k.want...)
			if name != "no answer to operations" && c.left() != "" {
				t.Errorf("left %q after %v", c.left(), err)
			}
			if len(c.sessions) > 0 && len(c.objects) == 0 && c.sent("chunk") > 0 && c.sent("cancel") == 0 && strings.Contains(name, "storage") {
				t.Error("the upload's session is open still")
			}
		})
	}
}

// Cancelled anywhere, the run ends soon and leaves nothing.
func TestCancel(t *testing.T) {
	for _, id := range []string{"compute.images.get", "storage.objects.get", "begin", "chunk", "compute.images.insert", "compute.globalOperations.get", "compute.images.setIamPolicy"} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			c := newCloud(t)
			c.faults[id] = []fault{{what: "hang"}}
			if id == "compute.globalOperations.get" {
				c.notReady = 3 // the image is being made, and may not be deleted yet
			}
			u := c.upload()
			u.limits.attempt, u.limits.piece, u.limits.answer = time.Hour, time.Hour, 10*time.Millisecond
			u.Members = []string{"user:jo@example.com"}
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("Packer says stop")
			go func() {
				<-c.hung
				cancel(why)
			}()
			_, err := Run(ctx, Config{Dir: output(t, 1<<20), Upload: u}, &lines{})
			if !errors.Is(err, why) {
				t.Errorf("error %v", err)
			}
			if c.left() != "" {
				t.Errorf("left %q after %v", c.left(), err)
			}
			if id == "chunk" && c.sent("cancel") != 1 {
				t.Error("the upload's session was not cancelled")
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.polls = 1000000
	u := c.upload()
	u.Timeout, u.limits.cleanup = 2*time.Second, 100*time.Millisecond
	_, err := Run(t.Context(), Config{Dir: output(t, 1<<20), Upload: u}, &lines{})
	check(t, err, "it was not done after timeout, 2s", "something is left in the cloud: delete the image demo-1-0-0: it was not done after 100ms; delete it with `gcloud compute images delete demo-1-0-0 --project=my-project`")
}
