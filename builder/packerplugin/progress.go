// SPDX-License-Identifier: Apache-2.0

package packerplugin

import (
	"fmt"
	"sync"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/show"
)

// progress shows a bake in Packer's output. Packer's own interface is not
// meant for several goroutines, a bake's is.
type progress struct {
	mu sync.Mutex
	ui packersdk.Ui
}

// Say prints one line.
func (p *progress) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ui.Say(fmt.Sprintf(format, args...))
}

// Warn prints one line in the colour of errors.
func (p *progress) Warn(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ui.Error("WARNING: " + fmt.Sprintf(format, args...))
}

// Done prints a finished step.
func (p *progress) Done(s builder.StepTime) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ui.Say(show.Step(s))
}
