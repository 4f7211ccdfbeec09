// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/compose-spec/compose-go/v2/dotenv"
)

// compose-go leaves the format "raw" of env files to its caller.
func init() { dotenv.RegisterFormat("raw", rawEnv) }

// rawEnv reads KEY=value lines as they stand, without quotes, comments at the
// end of a line or variables: what `docker run --env-file` reads.
func rawEnv(r io.Reader, filename string, vars map[string]string, lookup func(string) (string, bool)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEnv)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		switch {
		case !utf8.ValidString(line):
			return fmt.Errorf("%s: line %d is no text", filename, n)
		case key == "" || strings.ContainsAny(key, " \t"):
			return fmt.Errorf("%s: line %d: %q is no name of a variable", filename, n, key)
		case ok:
			vars[key] = value
		default:
			if value, ok := lookup(key); ok {
				vars[key] = value
			}
		}
	}
	return lines.Err()
}
