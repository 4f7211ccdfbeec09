// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/compose/budget"
)

const folder = "../../docs/marketplace/"

// key is a public key as an admin has it.
const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID2SfxuZsg4VauYiC0SLG/bVCY7xhWbM+jT6VgzlfXKl you@example.com"

// stack is a CloudFormation template with values for its parameters: as much
// of its functions as the example uses. Resources count as their names.
type stack struct {
	t      *testing.T
	root   map[string]any
	values map[string]string
}

func readStack(t *testing.T, values map[string]string) *stack {
	t.Helper()
	b, err := os.ReadFile(folder + "cloudformation.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	s := &stack{t: t, values: map[string]string{"AWS::StackName": "box"}}
	s.root = untag(t, doc.Content[0]).(map[string]any)
	for name, p := range s.get("Parameters").(map[string]any) {
		if def, ok := p.(map[string]any)["Default"]; ok {
			s.values[name] = fmt.Sprint(def)
		}
	}
	for name, v := range values {
		s.values[name] = v
	}
	return s
}

// untag turns the short forms of functions (!Ref X) into the long ones
// ({Ref: X}).
func untag(t *testing.T, n *yaml.Node) any {
	t.Helper()
	var v any
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			if _, twice := m[n.Content[i].Value]; twice {
				t.Fatalf("line %d: %s is there twice", n.Content[i].Line, n.Content[i].Value)
			}
			m[n.Content[i].Value] = untag(t, n.Content[i+1])
		}
		v = m
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			list = append(list, untag(t, c))
		}
		v = list
	default:
		v = n.Value
	}
	switch tag := n.Tag; {
	case strings.HasPrefix(tag, "!!") || tag == "":
		return v
	case tag == "!Ref":
		return map[string]any{"Ref": v}
	case tag == "!GetAtt":
		return map[string]any{"Fn::GetAtt": v}
	default:
		return map[string]any{"Fn::" + strings.TrimPrefix(tag, "!"): v}
	}
}

// get is what lies at a path of names, nil when it is not there.
func (s *stack) get(path ...string) any {
	var v any = s.root
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

// eval is the value of an expression.
func (s *stack) eval(v any) string {
	s.t.Helper()
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Sprint(v)
	}
	if len(m) != 1 {
		s.t.Fatalf("no function: %v", m)
	}
	for name, arg := range m {
		list, _ := arg.([]any)
		switch name {
		case "Ref", "Fn::GetAtt":
			ref := fmt.Sprint(arg)
			if x, ok := s.values[ref]; ok {
				return x
			}
			if resource, _, _ := strings.Cut(ref, "."); s.get("Resources", resource) == nil && s.get("Parameters", resource) == nil {
				s.t.Fatalf("%s refers to %q, which is not in the template", name, ref)
			}
			return ref
		case "Fn::Base64":
			return s.eval(arg)
		case "Fn::If":
			if s.condition(s.get("Conditions", list[0].(string))) {
				return s.eval(list[1])
			}
			return s.eval(list[2])
		case "Fn::Join":
			return strings.Join(s.list(list[1]), s.eval(list[0]))
		case "Fn::FindInMap":
			return s.eval(s.get("Mappings", s.eval(list[0]), s.eval(list[1]), s.eval(list[2])))
		case "Fn::Sub":
			return s.sub(arg)
		}
		s.t.Fatalf("%s is not known here", name)
	}
	return ""
}

func (s *stack) list(v any) []string {
	s.t.Helper()
	if m, ok := v.(map[string]any); ok {
		split := m["Fn::Split"].([]any)
		return strings.Split(s.eval(split[1]), s.eval(split[0]))
	}
	var out []string
	for _, x := range v.([]any) {
		out = append(out, s.eval(x))
	}
	return out
}

func (s *stack) sub(arg any) string {
	s.t.Helper()
	text, own := arg, map[string]any{}
	if list, ok := arg.([]any); ok {
		text, own = list[0], list[1].(map[string]any)
	}
	return os.Expand(text.(string), func(name string) string {
		if v, ok := own[name]; ok {
			return s.eval(v)
		}
		return s.eval(map[string]any{"Ref": name})
	})
}

func (s *stack) condition(v any) bool {
	s.t.Helper()
	m := v.(map[string]any)
	if list, ok := m["Fn::Equals"].([]any); ok {
		return s.eval(list[0]) == s.eval(list[1])
	}
	if list, ok := m["Fn::Not"].([]any); ok {
		return !s.condition(list[0])
	}
	s.t.Fatalf("no condition: %v", v)
	return false
}

func launch(s *stack, path ...string) any {
	return s.get(append([]string{"Resources", "LaunchTemplate", "Properties", "LaunchTemplateData"}, path...)...)
}

// parseUserData holds a document against the schema of a box.
func parseUserData(t *testing.T, doc string) config.Config {
	t.Helper()
	if len(doc) > 16<<10 {
		t.Errorf("user-data of %d bytes is more than EC2 takes", len(doc))
	}
	c, problems := config.Parse("user-data", []byte(doc))
	for _, p := range problems {
		t.Errorf("a box refuses this user-data: %v\n%s", p, doc)
	}
	return c
}

func TestCloudFormationUserData(t *testing.T) {
	const disk = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_"
	c := parseUserData(t, readStack(t, map[string]string{"DataVolume": "vol-0a1b2c3d4e5f60718"}).userData())
	if c.Hostname != "" || c.Size != "S" || len(c.Admin.SSHKeys) != 0 || c.Data.Adopt || c.Data.Disk != disk+"vol0a1b2c3d4e5f60718" {
		t.Errorf("by default: %+v", c)
	}
	c = parseUserData(t, readStack(t, map[string]string{"Hostname": "box1.example.com", "Size": "XL", "SshPublicKey": key, "DataVolumeId": "vol-0fedcba9"}).userData())
	if c.Hostname != "box1.example.com" || c.Size != "XL" || !slices.Equal(c.Admin.SSHKeys, []string{key}) || !c.Data.Adopt || c.Data.Disk != disk+"vol0fedcba9" {
		t.Errorf("with everything: %+v", c)
	}
}

func (s *stack) userData() string { return s.eval(launch(s, "UserData")) }

func TestCloudFormationSizes(t *testing.T) {
	s := readStack(t, nil)
	var names []string
	for _, size := range budget.Sizes() {
		names = append(names, size.Name)
		for field, want := range map[string]string{"InstanceType": size.EC2, "SystemGiB": fmt.Sprint(size.DiskGiB), "DataGiB": fmt.Sprint(size.DataGiB)} {
			if got := fmt.Sprint(s.get("Mappings", "Sizes", size.Name, field)); got != want {
				t.Errorf("%s of %s is %s, and %s in the profiles", field, size.Name, got, want)
			}
		}
	}
	if n := len(s.get("Mappings", "Sizes").(map[string]any)); n != len(names) {
		t.Errorf("%d sizes, %d profiles", n, len(names))
	}
	if got := s.list(s.get("Parameters", "Size", "AllowedValues")); !slices.Equal(got, names) {
		t.Errorf("sizes to choose from: %v", got)
	}
}

// TestCloudFormationRules are what the page promises of the template.
func TestCloudFormationRules(t *testing.T) {
	s := readStack(t, nil)
	for what, c := range map[string]struct {
		got  any
		want string
	}{
		"IMDSv2 required":              {launch(s, "MetadataOptions", "HttpTokens"), "required"},
		"no metadata for containers":   {launch(s, "MetadataOptions", "HttpPutResponseHopLimit"), "1"},
		"data kept with the stack":     {s.get("Resources", "DataVolume", "DeletionPolicy"), "Retain"},
		"data kept when replaced":      {s.get("Resources", "DataVolume", "UpdateReplacePolicy"), "Retain"},
		"data encrypted":               {s.get("Resources", "DataVolume", "Properties", "Encrypted"), "true"},
		"ssh rule only when asked for": {s.get("Resources", "SshIngress", "Condition"), "WithSsh"},
		"nobody by ssh by default":     {s.get("Parameters", "SshCidr", "Default"), ""},
	} {
		if fmt.Sprint(c.got) != c.want {
			t.Errorf("%s: %v, want %s", what, c.got, c.want)
		}
	}
	for _, d := range launch(s, "BlockDeviceMappings").([]any) {
		ebs := d.(map[string]any)["Ebs"].(map[string]any)
		if ebs["Encrypted"] != "true" {
			t.Errorf("a disk is not encrypted: %v", d)
		}
	}
	var ports []string
	for _, r := range s.get("Resources", "SecurityGroup", "Properties", "SecurityGroupIngress").([]any) {
		rule := r.(map[string]any)
		ports = append(ports, fmt.Sprint(rule["FromPort"]))
		if rule["FromPort"] != rule["ToPort"] {
			t.Errorf("a range of ports is open: %v", rule)
		}
	}
	if !slices.Equal(ports, []string{"80", "443"}) {
		t.Errorf("open ports: %v", ports)
	}
	// Every reference leads somewhere.
	for _, name := range []string{"Resources", "Outputs"} {
		s.walk(s.get(name))
	}
}

// walk evaluates every function below v.
func (s *stack) walk(v any) {
	s.t.Helper()
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			s.walk(x)
		}
	case map[string]any:
		for name, x := range v {
			if name == "Ref" || strings.HasPrefix(name, "Fn::") {
				s.eval(v)
				continue
			}
			if name == "Condition" && s.get("Conditions", fmt.Sprint(x)) == nil {
				s.t.Errorf("there is no condition %v", x)
			}
			s.walk(x)
		}
	}
}
