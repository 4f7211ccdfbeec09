// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/builder"
)

// findDist is the output folder that the arguments name, or the newest one
// below dist/.
func findDist(args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	manifests, err := filepath.Glob(filepath.Join("dist", "*", builder.ManifestName))
	if err != nil {
		return "", err
	}
	var newest string
	var at time.Time
	for _, m := range manifests {
		if info, err := os.Stat(m); err == nil && info.ModTime().After(at) {
			newest, at = filepath.Dir(m), info.ModTime()
		}
	}
	if newest == "" {
		return "", fmt.Errorf("there is no image below dist/: bake one with `make image`, or name its folder")
	}
	return newest, nil
}
