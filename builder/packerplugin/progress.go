// SPDX-License-Identifier: Apache-2.0

package packerplugin

import (
	"fmt"
	"sync"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/show"
)

// Lines shows lines in Packer's output. Packer's own interface is not meant
// for several goroutines, this is.
type Lines struct {
	mu sync.Mutex
	ui packersdk.Ui
}

// NewLines gives the lines of ui.
func NewLines(ui packersdk.Ui) *Lines { return &Lines{ui: ui} }

// Say prints one line.
func (p *Lines) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ui.Say(fmt.Sprintf(format, args...))
}

// Warn prints one line in the colour of errors.
func (p *Lines) Warn(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ui.Error("WARNING: " + fmt.Sprintf(format, args...))
}

// progress shows a bake.
type progress struct{ *Lines }

// Done prints a finished step.
func (p progress) Done(s builder.StepTime) { p.Say("%s", show.Step(s)) }
