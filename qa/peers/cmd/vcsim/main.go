// SPDX-License-Identifier: Apache-2.0

// Command vcsim is vSphere's simulator, for tests: one vCenter with one host
// and one datastore. It prints its URL and serves until standard input ends.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	"github.com/vmware/govmomi/simulator"
)

func main() {
	m := simulator.VPX()
	m.Machine = 0
	if err := m.Create(); err != nil {
		log.Fatal(err)
	}
	defer m.Remove()
	s := m.Service.NewServer()
	defer s.Close()
	fmt.Println(s.URL)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		log.Print(err)
	}
}
