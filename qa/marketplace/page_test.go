// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/images/marketplace"
)

// TestPage holds docs/marketplace.md against the program: sizes, the number of
// checks, and links.
func TestPage(t *testing.T) {
	b, err := os.ReadFile("../../docs/marketplace.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	rows := 0
	for _, s := range budget.Sizes() {
		row := fmt.Sprintf("| %s | %d | %d GiB | %d GiB | %d GiB | %s | %s |\n", s.Name, s.CPUs, s.MemoryMiB>>10, s.DiskGiB, s.DataGiB, s.EC2, s.GCE)
		if !strings.Contains(page, row) {
			t.Errorf("the page does not say: %s", row)
		}
		rows++
	}
	if n := strings.Count(page, " GiB | "); n != 3*rows {
		t.Errorf("the table of sizes has %d cells with GiB", n)
	}
	root := &marketplace.Tree{}
	n := len(marketplace.Check(marketplace.Image{Root: root, Boot: &marketplace.Boot{}}).Rows)
	if !strings.Contains(page, fmt.Sprintf("%d checks", n)) {
		t.Errorf("there are %d checks, and the page says another number", n)
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join("../../docs", m[1])); err != nil {
			t.Errorf("a link leads nowhere: %v", err)
		}
	}
}
