// SPDX-License-Identifier: Apache-2.0

//go:build vm

package powercut

import "testing"

func TestControl(t *testing.T) {
	_, tree := opened(t)
	base := "/work/tmp/H/rec/base.raw"
	seesDamage(t, Campaign{Programs: Programs{ownPrograms(t, base), tree.Dir}}, base)
}
