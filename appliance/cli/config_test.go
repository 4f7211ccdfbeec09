// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/config"
)

func TestConfig(t *testing.T) {
	root := t.TempDir()
	if code, out, errs := run(t.Context(), "config", "--root", root); code != ExitFailed || out != "" || !strings.Contains(errs, "systemctl status holdfast-config") {
		t.Errorf("before it was read: %d %q %q", code, out, errs)
	}
	c, problems := config.Parse("f", []byte("hostname: box1\nproxy: {http: \"http://user:geheim@proxy.example.com:3128\"}\nsize: S\n"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	c.TLS = config.TLS{Certificate: "x", Key: "geheim"}
	e := config.Effective{Config: c, Origin: map[string]config.Source{"hostname": config.FromEC2, "proxy": config.FromFile, "size": config.FromDefault}, Platform: "ec2",
		Instance: config.Instance{ID: "i-0123456789abcdef0", Zone: "eu-central-1a"}, At: noon,
		Sources: []config.SourceState{
			{Source: config.FromFile, Where: "file", State: config.Applied, At: noon},
			{Source: config.FromEC2, Where: "EC2 user-data", State: config.Kept, Why: config.Refused, At: noon,
				Problems: []config.Problem{{File: "EC2 user-data", Line: 3, Key: "sise", Text: "the key is not known", Mend: "known here: size"}}},
		}}
	if err := e.Save(root); err != nil {
		t.Fatal(err)
	}
	code, out, errs := run(t.Context(), "config", "--root", root)
	for _, want := range []string{
		"platform  ec2 (i-0123456789abcdef0, eu-central-1a)\n", "hostname                 ec2             box1\n",
		"proxy.http               file            http://user:xxxxx@proxy.example.com:3128\n", "tls.key                                  " + config.Hidden + "\n",
		"ec2                      kept (refused)  EC2 user-data\n", "EC2 user-data is refused:\n  EC2 user-data:3: sise: the key is not known; known here: size\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	if code != 0 || errs != "" || strings.Contains(out, "geheim") {
		t.Errorf("%d %q\n%s", code, errs, out)
	}
	code, out, _ = run(t.Context(), "config", "--json", "--root", root)
	var got config.Effective
	if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil || strings.Contains(out, "geheim") || got.Config.Hostname != "box1" || got.Origin["hostname"] != "ec2" {
		t.Errorf("%d %v\n%s", code, err, out)
	}
}

func TestConfigCheck(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good, bad := file("good.yaml", "hostname: box1\n"), file("bad.yaml", "hostname: box1\nsise: S\nsize: XXL\n")
	if code, out, errs := run(t.Context(), "config", "check", good); code != 0 || out != good+": a box takes this\n" || errs != "" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	code, out, errs := run(t.Context(), "config", "check", bad)
	if code != ExitFailed || !strings.HasPrefix(out, bad+":2: sise: the key is not known") || strings.Count(out, "\n") != 2 || errs != "holdfast: "+bad+" is refused for 2 problems\n" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	for args, want := range map[string]int{"config check": ExitUsage, "config check a b": ExitUsage, "config check " + dir + "/none": ExitFailed, "config extra": ExitUsage} {
		if code, out, errs := run(t.Context(), strings.Fields(args)...); code != want || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: %d %q %q", args, code, out, errs)
		}
	}
}
