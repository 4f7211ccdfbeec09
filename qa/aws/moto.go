// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// startWithin bounds the wait for moto's server to listen.
const startWithin = 60 * time.Second

// Moto is moto's server out of a tools tree, run by the tree's own loader: it
// needs no root and mounts nothing.
type Moto struct {
	URL string
	cmd *exec.Cmd
}

var listening = regexp.MustCompile(`Running on (http://127\.0\.0\.1:[0-9]+)`)

// StartMoto starts the server on a free port of this machine and waits until it
// listens.
func StartMoto(tree string) (*Moto, error) {
	loader, program := filepath.Join(tree, "lib64/ld-linux-x86-64.so.2"), filepath.Join(tree, "usr/bin/moto_server")
	for _, f := range []string{loader, program, filepath.Join(tree, "usr/bin/python3")} {
		if _, err := os.Stat(f); err != nil {
			return nil, fmt.Errorf("the tools tree lacks %s: add python3-moto to it and make it again (make tools)", f)
		}
	}
	cmd := exec.Command(loader, "--library-path", filepath.Join(tree, "usr/lib/x86_64-linux-gnu"),
		filepath.Join(tree, "usr/bin/python3"), "-u", program, "-H", "127.0.0.1", "-p", "0")
	cmd.Env = append(os.Environ(), "PYTHONHOME="+filepath.Join(tree, "usr"), "PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8", "NO_COLOR=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	m := &Moto{cmd: cmd}
	found := make(chan string, 1)
	go func() {
		var once sync.Once
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if hit := listening.FindStringSubmatch(lines.Text()); hit != nil {
				once.Do(func() { found <- hit[1] })
			}
		}
		io.Copy(io.Discard, out)
		once.Do(func() { close(found) })
	}()
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	select {
	case url, ok := <-found:
		if ok {
			m.URL = url
			return m, nil
		}
		m.Stop()
		return nil, fmt.Errorf("moto's server ended before it listened")
	case <-ctx.Done():
		m.Stop()
		return nil, fmt.Errorf("moto's server did not listen within %s", startWithin)
	}
}

// Reset empties the server's accounts.
func (m *Moto) Reset(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.URL+"/moto-api/reset", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("moto's server was not emptied: %s", resp.Status)
	}
	return nil
}

// Stop ends the server.
func (m *Moto) Stop() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
}
