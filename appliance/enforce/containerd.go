// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Layers knows where a container writes beside its volumes.
type Layers interface {
	// Dirs are the folders of a container's writable layer, none where it has
	// none. The container may be created and not started yet.
	Dirs(ctx context.Context, container string) ([]string, error)
}

// Containerd asks containerd, which keeps the layers of Docker's containerd
// image store under the ids of the containers. The engine itself does not tell.
// It makes the one call it needs in gRPC's own bytes over HTTP/2: the client
// library would bring gRPC and all of containerd's types along.
type Containerd struct {
	client *http.Client
}

const (
	containerdSocket = "/run/containerd/containerd.sock"
	snapshotter      = "overlayfs"
	namespace        = "moby"
	// askFor bounds one question, maxAnswer its answer.
	askFor    = 5 * time.Second
	maxAnswer = 256 << 10
)

// NewContainerd talks to the containerd behind a socket, "" its usual one.
func NewContainerd(socket string) *Containerd {
	if socket == "" {
		socket = containerdSocket
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	dialer := new(net.Dialer)
	return &Containerd{client: &http.Client{Transport: &http.Transport{
		Protocols: protocols, MaxIdleConns: 1, IdleConnTimeout: time.Minute,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}
}

// errNoLayer says that containerd does not know the container.
var errNoLayer = errors.New("containerd has no writable layer of this container")

// Dirs implements Layers: the upper and the work folder of the overlay, work
// first, because files appear there and are moved into the other.
func (c *Containerd) Dirs(ctx context.Context, container string) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askFor, fmt.Errorf("containerd did not answer within %s", askFor))
	defer cancel()
	// MountsRequest: snapshotter = 1, key = 2.
	message := appendString(appendString(nil, 1, snapshotter), 2, container)
	answer, err := c.call(ctx, "/containerd.services.snapshots.v1.Snapshots/Mounts", message)
	if errors.Is(err, errNoLayer) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask containerd for the layer of container %.12s: %w", container, err)
	}
	dirs, err := parseMounts(answer)
	if err != nil {
		return nil, fmt.Errorf("containerd's answer about container %.12s: %w", container, err)
	}
	return dirs, nil
}

// call is one gRPC call: a message each way, each behind a byte of flags and
// its length (gRPC over HTTP2, "Length-Prefixed-Message").
func (c *Containerd) call(ctx context.Context, method string, message []byte) ([]byte, error) {
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://containerd"+method, bytes.NewReader(append(body, message...)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("Containerd-Namespace", namespace)
	resp, err := c.client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("more than %d bytes", maxAnswer)
	}
	status, text := resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
	if status == "" {
		status, text = resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("HTTP status %s", resp.Status)
	case status == "5": // NOT_FOUND
		return nil, errNoLayer
	case status != "0":
		return nil, fmt.Errorf("gRPC status %q: %.200s", status, text)
	case len(answer) < 5 || answer[0] != 0 || int(binary.BigEndian.Uint32(answer[1:])) != len(answer)-5:
		return nil, fmt.Errorf("%d bytes are not one message", len(answer))
	}
	return answer[5:], nil
}

// parseMounts reads a MountsResponse: mounts = 1, each with type = 1 and
// options = 4 among its fields.
func parseMounts(message []byte) ([]string, error) {
	var upper, work string
	err := fields(message, func(number uint64, mount []byte) error {
		if number != 1 {
			return nil
		}
		return fields(mount, func(number uint64, value []byte) error {
			if number != 4 {
				return nil
			}
			if dir, ok := strings.CutPrefix(string(value), "upperdir="); ok {
				upper = dir
			}
			if dir, ok := strings.CutPrefix(string(value), "workdir="); ok {
				work = dir
			}
			return nil
		})
	})
	if err != nil || upper == "" || work == "" {
		return nil, err
	}
	return []string{work, upper}, nil
}

// fields calls f for each length-delimited field of a protobuf message, and
// passes over the others.
func fields(message []byte, f func(number uint64, value []byte) error) error {
	bad := errors.New("not a protobuf message")
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return bad
		}
		message = message[n:]
		var size uint64
		switch tag & 7 {
		case 0:
			if _, n = binary.Uvarint(message); n <= 0 {
				return bad
			}
			size = uint64(n)
		case 1:
			size = 8
		case 2:
			if size, n = binary.Uvarint(message); n <= 0 {
				return bad
			}
			message = message[n:]
		case 5:
			size = 4
		default:
			return bad
		}
		if size > uint64(len(message)) {
			return bad
		}
		if tag&7 == 2 {
			if err := f(tag>>3, message[:size]); err != nil {
				return err
			}
		}
		message = message[size:]
	}
	return nil
}

func appendString(b []byte, number uint64, s string) []byte {
	b = binary.AppendUvarint(b, number<<3|2)
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
