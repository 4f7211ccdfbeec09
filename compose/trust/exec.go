// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// external asks the command for a signature.
func (k *Keyring) external(ctx context.Context, role, id string, payload []byte) ([]byte, bool, error) {
	period := k.Period
	if period == 0 {
		period = SignerPeriod
	}
	ctx, cancel := context.WithTimeoutCause(ctx, period, fmt.Errorf("it took longer than %s", period))
	defer cancel()
	cmd := exec.CommandContext(ctx, k.Command[0], k.Command[1:]...)
	cmd.Env = append(os.Environ(), "HOLDFAST_ROLE="+role, "HOLDFAST_KEY_ID="+id)
	cmd.Stdin = bytes.NewReader(payload)
	out, said := &capped{limit: 4096}, &capped{limit: 4096}
	cmd.Stdout, cmd.Stderr = out, said
	// What it started may hold the pipes open: that does not hold us.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, false, fmt.Errorf("trust: the signer %s was stopped (%w)", k.Command[0], context.Cause(ctx))
	case errors.As(err, &exit) && exit.ExitCode() == 3:
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("trust: the signer %s failed for the key %s of %s (%w): %s", k.Command[0], short(id), role, err, strings.TrimSpace(string(said.data)))
	case len(out.data) != ed25519.SignatureSize:
		return nil, false, fmt.Errorf("trust: the signer %s wrote not the %d bytes of a raw signature, but %d or more: it must write nothing else to its standard output", k.Command[0], ed25519.SignatureSize, len(out.data))
	}
	return out.data, true, nil
}

// capped keeps the first bytes that a program writes.
type capped struct {
	data  []byte
	limit int
}

func (c *capped) Write(p []byte) (int, error) {
	c.data = append(c.data, p[:min(len(p), c.limit-len(c.data))]...)
	return len(p), nil
}
