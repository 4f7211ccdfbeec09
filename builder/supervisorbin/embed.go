// SPDX-License-Identifier: Apache-2.0

//go:build embed_supervisor

package supervisorbin

import _ "embed"

//go:embed holdfast
var binary []byte
