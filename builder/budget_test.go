// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/budget"
)

// TestBakeProvesTheBudget: what fits no machine it is made for is refused
// before anything is fetched, and before a lock is asked for.
func TestBakeProvesTheBudget(t *testing.T) {
	for _, c := range []struct{ name, sizes, limit, want, warns string }{
		{"fits all", "", "64m", "", ""},
		{"from M", "", "16g", "", "the stack's budgets do not fit XS: it is made for M, L, XL"},
		{"fits none", "", "300g", "XL", ""},
		{"not its own size", "x-holdfast: {sizes: {S: {cpus: 4, memory: 8GiB}, M: {}}}\n", "12g", "S", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "compose.yaml")
			text := "name: demo\n" + c.sizes + "services: {web: {image: a, mem_limit: " + c.limit + "}}\n"
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			p := &warned{}
			_, err := prepare(context.Background(), Config{Name: "demo", Version: "1.0.0", Stack: path, Lock: path + ".lock",
				Cache: t.TempDir(), OS: OS{Supervisor: []byte{1}}}, p)
			var no *budget.Refused
			switch {
			case c.want == "" && (errors.As(err, &no) || !strings.Contains(err.Error(), "lock")):
				t.Errorf("error %v, want one about the lock that is not there", err)
			case c.want != "" && (!errors.As(err, &no) || no.Budget.Size != c.want || !strings.Contains(err.Error(), "holdfast-release budget --stack "+path+" --size "+c.want)):
				t.Errorf("error %v, want a refusal of %s", err, c.want)
			}
			if got := strings.Join(p.text, "\n"); got != c.warns {
				t.Errorf("warned %q, want %q", got, c.warns)
			}
		})
	}
}
