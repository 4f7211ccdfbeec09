// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodRecipe = `layers:
  base:
    packages: [base-files, lib]
    without: {awk: no script runs}
    files:
      /etc/x: {content: "${version} stays", mode: 0600, uid: 7}
    folders:
      /data: {mode: 1777}
    links:
      /etc/y: x
  app:
    go: ./app
    out: /usr/bin/app
    set: {main.version: "v${version}"}
images:
  - ref: example.org/app:${version}
    layers: [base, app]
    config: {entrypoint: [/usr/bin/app], ports: [80/tcp], user: "7", env: {B: "2", A: "1"}, labels: {l: "${version}"}, stop_signal: SIGINT, workdir: /data}
`

func TestRecipe(t *testing.T) {
	r, err := ParseRecipe("images.yaml", []byte(goodRecipe), "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	im := r.Images[0]
	if im.Ref != "example.org/app:1.2.3" || strings.Join(im.Config.Env, " ") != "A=1 B=2" || im.Config.Labels["l"] != "1.2.3" {
		t.Errorf("%+v", im)
	}
	if v := r.Layers[1].Program.Set["main.version"]; v != "v1.2.3" {
		t.Errorf("main.version=%s", v)
	}
	if e := r.Layers[0].Entries["/etc/x"]; e.Content != "${version} stays" || e.Mode != 0o600 || e.UID != 7 {
		t.Errorf("%+v", e)
	}
}

// Each bad recipe is the good one with one edit; the error must name the line.
func TestRecipeErrors(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"layers:\n  base", "layer:\n  base", `images.yaml:1: unknown key "layer"`},
		{"    without:", "    witout:", `images.yaml:4: unknown key "witout"`},
		{"uid: 7}", "uid: 7, uid: 8}", `images.yaml:6: key "uid" is given twice`},
		{"uid: 7", "uid: -7", `images.yaml:6: "-7" is no user`},
		{"mode: 0600", "mode: 0999", `images.yaml:6: "0999" is no mode`},
		{"mode: 0600", "mode: 04755", `images.yaml:6: "04755" is no mode`},
		{"/etc/x:", "/etc/../x:", `images.yaml:6: "/etc/../x" is no clean absolute path`},
		{"/etc/x:", "/lib/x:", "images.yaml:6: write /usr/lib/x instead"},
		{"/etc/y: x", "/etc/x: y", "images.yaml:10: /etc/x is given twice"},
		{"[base-files, lib]", "[Base]", `images.yaml:3: "Base" is no Debian package name`},
		{"[base-files, lib]", "[lib, lib]", "images.yaml:3: package lib is listed twice"},
		{"go: ./app", "go: ../app", `images.yaml:12: "../app" is no import path`},
		{"go: ./app", "go: -toolexec=x", "is no import path"},
		{"    go: ./app\n", "", "images.yaml:12: out belongs to go"},
		{`"v${version}"`, `"a -X b"`, "images.yaml:14: "},
		{`"v${version}"`, `"${home}"`, "only ${version} is replaced"},
		{"[base, app]", "[base]", `images.yaml:11: layer "app" is in no image`},
		{"[base, app]", "[base, base]", "twice"},
		{"[base, app]", "[base, nope]", `images.yaml:16: image example.org/app:1.2.3 names layer "nope"`},
		{"example.org/app:${version}", "example.org/app", "no full image reference"},
		{"80/tcp", "80", `images.yaml:18: "80" is no port`},
		{"SIGINT", "INT", "is no signal name"},
		{"without: {awk: no script runs}", "without: {awk: }", "text belongs here"},
		{"[base-files, lib]", "&a [base-files, lib]\n    drop: *a", "a list belongs here"},
		{"layers:", "layers: [", "images.yaml:"},
		{goodRecipe, "", "the recipe is empty"},
	} {
		text := strings.Replace(goodRecipe, c.old, c.new, 1)
		if text == goodRecipe {
			t.Fatalf("%q is not in the recipe", c.old)
		}
		if _, err := ParseRecipe("images.yaml", []byte(text), "1.2.3"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q -> %q:\n got %v\nwant %s", c.old, c.new, err, c.want)
		}
	}
	if _, err := ParseRecipe("x", []byte(goodRecipe), "1 2"); err == nil {
		t.Error("a version with a space is accepted")
	}
	if _, err := ParseRecipe("x", make([]byte, maxRecipeBytes+1), "1"); err == nil {
		t.Error("a huge recipe is accepted")
	}
}

func TestDemoRecipe(t *testing.T) {
	file := filepath.Join("..", "..", "compose", "stacks", "demo", "images.yaml")
	for _, v := range []string{"1.0.0", "1.1.0"} {
		if _, err := ReadRecipe(file, v); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParseRecipe(f *testing.F) {
	f.Add([]byte(goodRecipe))
	if b, err := os.ReadFile(filepath.Join("..", "..", "compose", "stacks", "demo", "images.yaml")); err == nil {
		f.Add(b)
	}
	f.Add([]byte("layers: {a: {files: {/x: {content: &a [*a]}}}}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecipe("f", b, "1")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		for _, l := range r.Layers {
			for p := range l.Entries {
				if cleanPath(p) != nil {
					t.Errorf("path %q", p)
				}
			}
		}
	})
}
