// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
)

// answering is a containerd that answers one method.
func answering(t *testing.T, answer http.HandlerFunc) *Containerd {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: answer, Protocols: protocols}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return NewContainerd(socket)
}

// mounts is a MountsResponse of one overlay.
func mounts(options ...string) []byte {
	mount := appendString(appendString(nil, 1, "overlay"), 2, "overlay")
	for _, o := range options {
		mount = appendString(mount, 4, o)
	}
	message := appendString(nil, 1, string(mount))
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

func TestContainerd(t *testing.T) {
	for name, c := range map[string]struct {
		body         []byte
		status, text string
		want, err    string
	}{
		"an overlay":    {body: mounts("index=off", "workdir=/s/7/work", "upperdir=/s/7/fs", "lowerdir=/s/6/fs:/s/1/fs"), status: "0", want: "/s/7/work /s/7/fs"},
		"no layer":      {status: "5", text: "snapshot x does not exist: not found"},
		"a bind":        {body: mounts("rbind", "rw"), status: "0"},
		"refused":       {status: "7", text: "permission denied", err: `gRPC status "7": permission denied`},
		"no status":     {body: mounts(), err: `gRPC status ""`},
		"half":          {body: mounts("workdir=/a", "upperdir=/b")[:9], status: "0", err: "9 bytes are not one message"},
		"no protobuf":   {body: []byte{0, 0, 0, 0, 1, 0xff}, status: "0", err: "not a protobuf message"},
		"far too large": {body: make([]byte, maxAnswer+9), status: "0", err: "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			l := answering(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				want := "\x00\x00\x00\x00\x0e\x0a\x09overlayfs\x12\x01x"
				if err != nil || string(body) != want || r.Header.Get("Containerd-Namespace") != "moby" || r.Header.Get("Content-Type") != "application/grpc" ||
					r.URL.Path != "/containerd.services.snapshots.v1.Snapshots/Mounts" {
					t.Errorf("asked %s %q with %v, %v", r.URL.Path, body, r.Header, err)
				}
				w.Header().Set("Content-Type", "application/grpc")
				w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
				w.Write(c.body)
				if c.status != "" {
					w.Header().Set("Grpc-Status", c.status)
					w.Header().Set("Grpc-Message", c.text)
				}
			})
			dirs, err := l.Dirs(t.Context(), "x")
			if strings.Join(dirs, " ") != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, %v", dirs, err)
			}
		})
	}
	if _, err := NewContainerd(t.TempDir()+"/nobody").Dirs(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "ask containerd for the layer") {
		t.Error(err)
	}
}

func FuzzMounts(f *testing.F) {
	f.Add(mounts("workdir=/a", "upperdir=/b")[5:])
	f.Add([]byte{0x08, 0xff, 0xff, 0x01, 0x0d, 1, 2, 3, 4, 0x09, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, message []byte) {
		if dirs, err := parseMounts(message); len(dirs) != 0 && (len(dirs) != 2 || err != nil || dirs[0] == "" || dirs[1] == "") {
			t.Errorf("%q, %v", dirs, err)
		}
	})
}

// fakeLayers knows layers by container.
type fakeLayers map[string][]string

func (l fakeLayers) Dirs(_ context.Context, container string) ([]string, error) {
	if container == "broken" {
		return nil, errors.New("no answer")
	}
	return l[container], nil
}

// TestLayers: each service has its own project for what it writes beside its
// volumes, and an even share of what there is.
func TestLayers(t *testing.T) {
	d := &disks{space: map[string]Space{"/state": {40 * gib, 30 * gib}}, ballast: map[string]int64{}}
	q := newQuotas("/store", "/store/1/work", "/store/1/fs", "/store/2/work", "/store/2/fs", "/store/3/work", "/store/3/fs")
	e := New(Config{
		Root: t.TempDir(), Quotas: q, Space: d.Space, Ballast: d, State: "/state", Store: []string{"/store"}, KeptLayers: filepath.Join(t.TempDir(), "layers.json"),
		Layers: fakeLayers{"a": {"/store/1/work", "/store/1/fs"}, "b": {"/store/2/work", "/store/2/fs"}, "evil": {"/store/../etc/work", "/etc"}, "bind": nil, "a2": {"/store/3/work", "/store/3/fs"}},
	})
	e.Apply(t.Context(), shop(), nil, nil)
	q.did()
	for _, c := range []struct{ service, container, want, err string }{
		// 30 GiB less ballast and slack, for the five services of the stack.
		{"db", "a", "adopt /store/1/work 1048577\nadopt /store/1/fs 1048577\nlimit /state 1048577 5272 MiB", ""},
		{"db", "a", "", ""},
		{"web", "b", "adopt /store/2/work 1048578\nadopt /store/2/fs 1048578\nlimit /state 1048578 5272 MiB", ""},
		{"db", "a2", "adopt /store/3/work 1048577\nadopt /store/3/fs 1048577", ""},
		{"web", "bind", "", ""}, {"web", "nobody", "", ""},
		{"web", "broken", "", "no answer"},
		{"web", "evil", "", "not below /store"},
	} {
		err := e.layer(t.Context(), c.service, c.container)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: %v", c, err)
		}
		if got := q.did(); got != c.want {
			t.Errorf("%+v: did\n%s", c, got)
		}
	}
	// What one uses does not change the others' share; when it is used up the
	// admin is told.
	s := d.space["/state"]
	s.Free -= 5272 * mib
	d.space["/state"] = s
	q.use[1048577] = quota.Usage{Used: 5272 * mib, Limit: 5272 * mib, Files: 3}
	if list := e.layers(); codes(list) != "layer-full" || !strings.HasSuffix(list[0].Text, ": db 5.1 GiB") || q.did() != "" {
		t.Errorf("%+v", list)
	}
	// A daemon that starts again knows the numbers.
	e2 := New(e.c)
	e2.Apply(t.Context(), shop(), nil, nil)
	q.did()
	if err := e2.layer(t.Context(), "web", "b"); err != nil || q.did() != "" {
		t.Error("not the number it had", err)
	}
	q.none = true
	if err := e.layer(t.Context(), "web", "b"); err != nil {
		t.Error(err)
	}
	if layerShare(Space{gib, 0}, 0, 3) != leastLayer {
		t.Error("a full disk leaves services nothing")
	}
}
