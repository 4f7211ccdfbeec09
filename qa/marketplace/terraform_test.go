// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/compose/budget"
)

// module is a Terraform module of one file, as far as HCL goes: its syntax, its
// literals, and the expressions of locals with given values for what they
// refer to. What providers say of it is not known here.
type module struct {
	t    *testing.T
	body *hclsyntax.Body
}

func readModule(t *testing.T, name string) *module {
	t.Helper()
	path := filepath.Join(folder, name, "main.tf")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, diags := hclsyntax.ParseConfig(b, path, hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return &module{t, f.Body.(*hclsyntax.Body)}
}

// block finds a block by type and labels, such as "resource", "aws_instance",
// "box"; further names lead into blocks in it.
func (m *module) block(kind string, labels ...string) *hclsyntax.Body {
	m.t.Helper()
	for _, b := range m.body.Blocks {
		if b.Type == kind && slices.Equal(b.Labels, labels) {
			return b.Body
		}
	}
	m.t.Fatalf("there is no %s %v", kind, labels)
	return nil
}

func inner(t *testing.T, b *hclsyntax.Body, kind string) *hclsyntax.Body {
	t.Helper()
	for _, x := range b.Blocks {
		if x.Type == kind {
			return x.Body
		}
	}
	t.Fatalf("there is no block %s", kind)
	return nil
}

// literal is the value of an attribute that refers to nothing.
func literal(t *testing.T, b *hclsyntax.Body, name string) string {
	t.Helper()
	a := b.Attributes[name]
	if a == nil {
		t.Errorf("%s is not set", name)
		return ""
	}
	v, diags := a.Expr.Value(nil)
	if diags.HasErrors() {
		t.Errorf("%s: %v", name, diags)
		return ""
	}
	return text(v)
}

func text(v cty.Value) string {
	switch {
	case v.IsNull():
		return "null"
	case v.Type() == cty.String:
		return v.AsString()
	case v.Type() == cty.Number:
		return v.AsBigFloat().Text('f', -1)
	case v.Type() == cty.Bool:
		return fmt.Sprint(v.True())
	}
	return v.GoString()
}

// userData evaluates local.user_data.
func (m *module) userData(vars map[string]cty.Value, local, data string) config.Config {
	m.t.Helper()
	v, diags := m.block("locals").Attributes["user_data"].Expr.Value(&hcl.EvalContext{
		Variables: map[string]cty.Value{"var": cty.ObjectVal(vars), "local": cty.ObjectVal(map[string]cty.Value{local: cty.StringVal(data)})},
		Functions: map[string]function.Function{"jsonencode": stdlib.JSONEncodeFunc, "replace": stdlib.ReplaceFunc},
	})
	if diags.HasErrors() {
		m.t.Fatal(diags)
	}
	return parseUserData(m.t, v.AsString())
}

func TestTerraformUserData(t *testing.T) {
	for _, c := range []struct{ name, local, data, disk string }{
		{"terraform-aws", "data_volume", "vol-0a1b2c3d", "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0a1b2c3d"},
		{"terraform-google", "data_disk", "projects/p/zones/z/disks/d", "/dev/disk/by-id/scsi-0Google_PersistentDisk_data"},
	} {
		m := readModule(t, c.name)
		got := m.userData(map[string]cty.Value{
			"hostname": cty.StringVal(""), "size": cty.StringVal("S"), "ssh_keys": cty.ListValEmpty(cty.String), "adopt_data": cty.False,
		}, c.local, c.data)
		if got.Hostname != "" || got.Size != "S" || len(got.Admin.SSHKeys) != 0 || got.Data.Adopt || got.Data.Disk != c.disk {
			t.Errorf("%s by default: %+v", c.name, got)
		}
		got = m.userData(map[string]cty.Value{
			"hostname": cty.StringVal("box1.example.com"), "size": cty.StringVal("M"),
			"ssh_keys": cty.ListVal([]cty.Value{cty.StringVal(key)}), "adopt_data": cty.True,
		}, c.local, c.data)
		if got.Hostname != "box1.example.com" || got.Size != "M" || !slices.Equal(got.Admin.SSHKeys, []string{key}) || !got.Data.Adopt {
			t.Errorf("%s with everything: %+v", c.name, got)
		}
	}
}

func TestTerraformSizes(t *testing.T) {
	for name, machine := range map[string]func(budget.Size) string{
		"terraform-aws":    func(s budget.Size) string { return s.EC2 },
		"terraform-google": func(s budget.Size) string { return s.GCE },
	} {
		v, diags := readModule(t, name).block("locals").Attributes["sizes"].Expr.Value(nil)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		sizes := v.AsValueMap()
		if len(sizes) != len(budget.Sizes()) {
			t.Errorf("%s: %d sizes", name, len(sizes))
		}
		for _, s := range budget.Sizes() {
			if _, ok := sizes[s.Name]; !ok {
				t.Errorf("%s: no size %s", name, s.Name)
				continue
			}
			got := sizes[s.Name].AsValueMap()
			for field, want := range map[string]string{"type": machine(s), "system_gib": fmt.Sprint(s.DiskGiB), "data_gib": fmt.Sprint(s.DataGiB)} {
				if text(got[field]) != want {
					t.Errorf("%s: %s of %s is %s, and %s in the profiles", name, field, s.Name, text(got[field]), want)
				}
			}
		}
	}
}

// TestTerraformRules are what the page promises of the modules.
func TestTerraformRules(t *testing.T) {
	check := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	aws := readModule(t, "terraform-aws")
	box := aws.block("resource", "aws_instance", "box")
	check("IMDSv2 required", literal(t, inner(t, box, "metadata_options"), "http_tokens"), "required")
	check("no metadata for containers", literal(t, inner(t, box, "metadata_options"), "http_put_response_hop_limit"), "1")
	check("system disk encrypted", literal(t, inner(t, box, "root_block_device"), "encrypted"), "true")
	volume := aws.block("resource", "aws_ebs_volume", "data")
	check("data encrypted", literal(t, volume, "encrypted"), "true")
	check("data kept", literal(t, inner(t, volume, "lifecycle"), "prevent_destroy"), "true")
	for rule, port := range map[string]string{"http": "80", "https": "443", "ssh": "22"} {
		b := aws.block("resource", "aws_vpc_security_group_ingress_rule", rule)
		check(rule, literal(t, b, "from_port")+"-"+literal(t, b, "to_port"), port+"-"+port)
	}

	google := readModule(t, "terraform-google")
	machine := google.block("resource", "google_compute_instance", "box")
	check("Secure Boot", literal(t, inner(t, machine, "shielded_instance_config"), "enable_secure_boot"), "true")
	check("data kept", literal(t, inner(t, google.block("resource", "google_compute_disk", "data"), "lifecycle"), "prevent_destroy"), "true")
	// The name in user-data is the one the disk is attached under.
	check("name of the data disk", literal(t, inner(t, machine, "attached_disk"), "device_name"), "data")

	for _, m := range []*module{aws, google} {
		v, diags := m.block("variable", "ssh_cidrs").Attributes["default"].Expr.Value(nil)
		if diags.HasErrors() || v.LengthInt() != 0 {
			t.Errorf("by default somebody may reach ssh: %v", v.GoString())
		}
		for _, b := range m.body.Blocks {
			if b.Type == "variable" && b.Body.Attributes["description"] == nil {
				t.Errorf("variable %v says nothing of itself", b.Labels)
			}
			if b.Type == "provider" || strings.Contains(strings.Join(b.Labels, " "), "password") {
				t.Errorf("%s %v has no place in an example", b.Type, b.Labels)
			}
		}
	}
}
