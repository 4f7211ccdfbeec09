// SPDX-License-Identifier: Apache-2.0

// Command ovfspec reads an OVF envelope from standard input and prints what
// vSphere's own library makes of it, a VirtualMachineConfigSpec, as JSON.
package main

import (
	"bytes"
	"log"
	"os"

	"github.com/vmware/govmomi/ovf"
	"github.com/vmware/govmomi/vim25/types"
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
	// This encoder, unlike Go's own, says the type of each device.
	var b bytes.Buffer
	out := types.NewJSONEncoder(&b)
	out.SetIndent("", "  ")
	if err := out.Encode(spec); err != nil {
		log.Fatal(err)
	}
	if _, err := b.WriteTo(os.Stdout); err != nil {
		log.Fatal(err)
	}
}
