// SPDX-License-Identifier: Apache-2.0

//go:build engine

package ovf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/internal/foreign"
)

// xmllint finds the envelope well-formed and valid by the schema in testdata,
// and that schema refuses an envelope that is not.
func TestForeignSchema(t *testing.T) {
	schema, err := filepath.Abs("testdata/ovf.xsd")
	if err != nil {
		t.Fatal(err)
	}
	good := marshal(t, sample())
	for _, c := range []struct {
		name, old, new string
		valid          bool
	}{
		{"as written", "", "", true},
		{"unknown file", "ovf:fileRef=\"file1\"", "ovf:fileRef=\"file2\"", false},
		{"unknown parent", "<rasd:Parent>3<", "<rasd:Parent>9<", false},
		{"an attribute without name space", "ovf:transport", "transport", false},
		{"without its name", "<Name>demo-1.0.0</Name>", "", false},
		{"elements out of order", "<Product>Demo</Product>", "<Version>1</Version><Product>Demo</Product>", false},
		{"a number that is none", "ovf:capacity=\"", "ovf:capacity=\"x", false},
	} {
		file := filepath.Join(t.TempDir(), "x.ovf")
		if err := os.WriteFile(file, bytes.Replace(good, []byte(c.old), []byte(c.new), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, code := foreign.Run(t, "xmllint", "--noout", "--nonet", "--schema", schema, file); (code == 0) != c.valid {
			t.Errorf("%s: xmllint ends with %d: %s", c.name, code, out)
		}
	}
}

// vSphere's own library makes the machine of it that we mean.
func TestForeignConfigSpec(t *testing.T) {
	peers := os.Getenv("HOLDFAST_PEERS")
	if peers == "" {
		t.Fatal("HOLDFAST_PEERS is not set: run make test-engine")
	}
	for _, secure := range []bool{false, true} {
		o := sample()
		o.SecureBoot = secure
		cmd := exec.CommandContext(t.Context(), filepath.Join(peers, "ovfspec"))
		cmd.Stdin, cmd.Stderr = bytes.NewReader(marshal(t, o)), os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var spec struct {
			Name, GuestID, Firmware, Version string
			NumCPUs                          int
			MemoryMB                         int64
			BootOptions                      struct{ EfiSecureBootEnabled bool }
			ExtraConfig                      []struct {
				Key   string
				Value struct {
					Text string `json:"_value"`
				}
			}
			DeviceChange []struct {
				Device struct {
					Type            string `json:"_typeName"`
					CapacityInBytes int64
					UnitNumber      int
				}
			}
			VAppConfig struct {
				Property []struct {
					Info struct {
						ClassID, ID      string
						UserConfigurable bool
					}
				}
			}
		}
		if err := json.Unmarshal(out, &spec); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var devices []string
		for _, d := range spec.DeviceChange {
			devices = append(devices, d.Device.Type)
			if d.Device.Type == "VirtualDisk" && d.Device.CapacityInBytes != o.Capacity {
				t.Errorf("disk of %d bytes, want %d", d.Device.CapacityInBytes, o.Capacity)
			}
		}
		got := fmt.Sprint(spec.Name, " ", spec.GuestID, " ", spec.Version, " ", spec.Firmware, " ", spec.NumCPUs, " ", spec.MemoryMB, " ", spec.BootOptions.EfiSecureBootEnabled, " ", devices)
		want := fmt.Sprint("demo-1.0.0 other4xLinux64Guest vmx-17 efi 2 4096 ", secure,
			" [ParaVirtualSCSIController VirtualIDEController VirtualDisk VirtualCdrom VirtualVmxnet3 VirtualVmxnet3]")
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if len(spec.ExtraConfig) != 1 || spec.ExtraConfig[0].Key != "disk.EnableUUID" || spec.ExtraConfig[0].Value.Text != "true" {
			t.Errorf("extra config %v", spec.ExtraConfig)
		}
		var keys []string
		for _, p := range spec.VAppConfig.Property {
			if p.Info.ClassID != Class || !p.Info.UserConfigurable {
				t.Errorf("property %+v", p.Info)
			}
			keys = append(keys, p.Info.ID)
		}
		if got := strings.Join(keys, " "); got != "hostname address gateway dns ntp proxy ssh_keys config" {
			t.Errorf("properties %s", got)
		}
	}
}
