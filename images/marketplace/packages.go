// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"encoding/json"
	"strings"
	"time"
)

// supportEnds is the last day on which security fixes are made, Debian's Long
// Term Support included. Source: Debian's release and LTS pages.
var supportEnds = map[string]string{
	"debian 11": "2026-08-31",
	"debian 12": "2028-06-30",
	"debian 13": "2030-06-30",
}

// soon is how long before that day it is time to think of it.
const soon = 180 * 24 * time.Hour

func checkSupported(im *Image, f *findings) {
	b, ok := im.Root.read("etc/os-release")
	if !ok {
		b, ok = im.Root.read("usr/lib/os-release")
	}
	if !ok {
		f.lookedAt("there is no os-release")
		f.refuse("no os-release says what system this is, so a scanner cannot know it is supported")
		return
	}
	v := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			v[key] = strings.Trim(value, `"'`)
		}
	}
	name := v["ID"] + " " + v["VERSION_ID"]
	f.lookedAt("os-release: %s", name)
	day, known := supportEnds[name]
	if !known {
		f.note("it is not known here how long %s is supported", name)
		return
	}
	end, err := time.Parse(time.DateOnly, day)
	if err != nil {
		f.note("%s", err) // a test parses every day of the table
		return
	}
	f.lookedAt("os-release: %s, supported until %s", name, day)
	switch left := end.Add(24 * time.Hour).Sub(im.Now); {
	case left <= 0:
		f.refuse("%s has had no security fixes since %s", name, day)
	case left < soon:
		f.note("%s has security fixes until %s only", name, day)
	}
}

// installed reads dpkg's status(5): the version of each installed package.
func installed(status []byte) map[string]string {
	out := map[string]string{}
	var name, version string
	is := false
	for line := range strings.Lines(string(status)) {
		line = strings.TrimRight(line, "\r\n")
		key, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "":
			if is && name != "" {
				out[name] = version
			}
			name, version, is = "", "", false
		case key == "Package":
			name = value
		case key == "Version":
			version = value
		case key == "Status":
			is = strings.HasSuffix(value, " installed")
		}
	}
	if is && name != "" {
		out[name] = version
	}
	return out
}

const dpkgStatus = "var/lib/dpkg/status"

func checkPackageDatabase(im *Image, f *findings) {
	t := im.Root
	b, ok := t.read(dpkgStatus)
	if !ok {
		f.lookedAt("/%s", dpkgStatus)
		f.refuse("/%s leads to no file, so a scanner sees no packages and takes the system for unknown", dpkgStatus)
		return
	}
	n := len(installed(b))
	f.lookedAt("/%s (%s): %d packages", dpkgStatus, "/"+t.resolve(dpkgStatus), n)
	if n == 0 {
		f.refuse("/%s lists no installed package", dpkgStatus)
	}
}

// sbom is the part of a CycloneDX bill of materials that is compared.
type sbom struct {
	Format     string `json:"bomFormat"`
	Components []struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		PURL    string `json:"purl"`
	} `json:"components"`
}

func checkSBOM(im *Image, f *findings) {
	if len(im.SBOM) == 0 {
		f.lookedAt("sbom.cdx.json is not there")
		f.refuse("there is no bill of materials beside the disk")
		return
	}
	var s sbom
	if err := json.Unmarshal(im.SBOM, &s); err != nil || s.Format != "CycloneDX" {
		f.lookedAt("sbom.cdx.json")
		f.refuse("the bill of materials is no CycloneDX JSON")
		return
	}
	have := map[string]bool{}
	for _, c := range s.Components {
		if strings.HasPrefix(c.PURL, "pkg:deb/") {
			have[c.Name+" "+c.Version] = true
		}
	}
	status, _ := im.Root.read(dpkgStatus)
	packages := installed(status)
	f.lookedAt("sbom.cdx.json: %d components, against %d installed packages", len(s.Components), len(packages))
	if len(s.Components) == 0 {
		f.refuse("the bill of materials lists nothing")
	}
	for name, version := range packages {
		if !have[name+" "+version] {
			f.refuse("%s %s is installed, and not in the bill of materials", name, version)
		}
	}
}

// checkVulnerabilities says what this program does not do.
func checkVulnerabilities(_ *Image, f *findings) {
	f.lookedAt("nothing: this needs a database of the day")
	f.note("have the shop's scanner look, and one of your own on the root and on sbom.cdx.json")
}
