// SPDX-License-Identifier: Apache-2.0

// Command ovfspec reads an OVF envelope from standard input and prints what
// vSphere's own library makes of it, a VirtualMachineConfigSpec, as JSON.
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/vmware/govmomi/ovf"
)

func main() {
	e, err := ovf.Unmarshal(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	spec, err := e.ToConfigSpec()
	if err != nil {
		log.Fatal(err)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := out.Encode(spec); err != nil {
		log.Fatal(err)
	}
}
