// SPDX-License-Identifier: Apache-2.0

package packerplugin

import (
	"reflect"
	"testing"

	"github.com/holdfast/holdfast/builder"
)

// config.hcl2spec.go is generated and committed: a field that was added to
// Config without `make generate` would be a key that Packer does not know.
func TestSpecIsGenerated(t *testing.T) {
	spec := New(fakeBake, builder.OS{}).ConfigSpec()
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		key, ok := field.Tag.Lookup("mapstructure")
		if !ok || field.Anonymous {
			continue
		}
		if spec[key] == nil {
			t.Errorf("key %s of Config.%s is not in config.hcl2spec.go: run `make generate`", key, field.Name)
		}
	}
	if len(spec) < 15 {
		t.Errorf("only %d keys", len(spec))
	}
}
