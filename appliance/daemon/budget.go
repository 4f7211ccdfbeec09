// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/appliance/usage"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/stack"
	"github.com/holdfast/holdfast/images/durable"
)

// maxBudget bounds the budget that is kept, in bytes.
const maxBudget = 4 << 20

// admit computes what each service may use on this machine. A stack that asks
// for more than there is does not start.
func (d *Daemon) admit(ctx context.Context, st *stack.Stack, box bool) (*budget.Budget, error) {
	node, err := d.node(ctx, box)
	if err != nil {
		return nil, held("budget-unknown", "see the text, mend the cause, then systemctl restart holdfast", err)
	}
	b, err := budget.For(st, d.size(), node)
	var no *budget.Refused
	switch {
	case errors.As(err, &no):
		d.publishBudget(no.Budget, false)
		// The text has the table and its own advice; a condition needs one all
		// the same.
		return nil, held("budget-refused", "do what stands below the table, then systemctl restart holdfast", err)
	case err != nil:
		return nil, held("budget-refused", "set `size` to one that the stack has, or leave it out (docs/configure.md); then reboot", err)
	}
	d.publishBudget(b, true)
	if err := d.keepBudget(b); err != nil {
		return nil, held("files-not-written", "make room on the state volume, then systemctl restart holdfast", fmt.Errorf("keep the budget: %w", err))
	}
	return b, nil
}

// size is the profile that was asked for, "" for the machine's own.
func (d *Daemon) size() string {
	size := d.c.Size
	if size == "" && d.c.Place != nil {
		if e, err := config.Load(d.c.Root); err == nil {
			size = e.Config.Size
		}
	}
	if size == "auto" {
		return ""
	}
	return size
}

// node is the machine. The volume for data counts on a box only: elsewhere
// nothing holds volumes to their budgets.
func (d *Daemon) node(ctx context.Context, box bool) (budget.Node, error) {
	u, err := usage.New(usage.Config{Root: d.c.Root}).Read(ctx, nil)
	n := budget.Node{CPUs: u.Node.CPUs, Memory: u.Node.MemoryTotal}
	if n.CPUs <= 0 || n.Memory <= 0 {
		return n, fmt.Errorf("what this machine has can't be read: %w", errors.Join(err, errors.New("neither processors nor memory are known")))
	}
	if !box {
		return n, nil
	}
	var s unix.Statfs_t
	if err := unix.Statfs(d.c.Data, &s); errors.Is(err, fs.ErrNotExist) {
		return n, nil // not known
	} else if err != nil {
		return n, &os.PathError{Op: "statfs", Path: d.c.Data, Err: err}
	}
	n.Data = int64(s.Blocks) * s.Bsize
	return n, nil
}

// keptBudget is the record of what was admitted last.
type keptBudget struct {
	Boot   string         `json:"boot"`
	Budget *budget.Budget `json:"budget"`
	// Was is the one before where the machine or its size is another in this
	// boot.
	Was *budget.Budget `json:"was,omitempty"`
}

// keepBudget writes the budget down, and shows how it differs from the last
// one where the machine or the size changed, until the next boot.
func (d *Daemon) keepBudget(b *budget.Budget) error {
	path := filepath.Join(d.c.State, "budget.json")
	var last keptBudget
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(text) > maxBudget || json.Unmarshal(text, &last) != nil {
		last = keptBudget{} // only the difference is lost
	}
	now := keptBudget{Boot: d.facts.BootID, Budget: b}
	switch {
	case last.Budget != nil && resized(last.Budget, b):
		now.Was = last.Budget
	case last.Boot == now.Boot && last.Was != nil && last.Was.Stack == b.Stack:
		now.Was = last.Was
	}
	if now.Was != nil {
		lines := append([]string{"this machine or its size is not what it was when the stack ran last, and the budgets follow:"}, budget.Diff(now.Was, b)...)
		d.setOther("budget", []status.Condition{{Code: "budget-changed", Severity: "info", Text: strings.Join(lines, "\n"),
			Remedy: "nothing to do; it goes with the next boot"}})
	}
	if err := os.MkdirAll(d.c.State, 0o755); err != nil {
		return err
	}
	out, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(out, '\n'), 0o644)
}

// resized says whether two budgets of one stack are for different machines.
// Two percent of memory come and go with kernels and firmware.
func resized(a, b *budget.Budget) bool {
	about := func(x, y int64) bool { return math.Abs(float64(x-y)) <= 0.02*math.Max(float64(x), float64(y)) }
	return a.Stack == b.Stack && (a.Size != b.Size || a.Node.CPUs != b.Node.CPUs || !about(a.Node.Memory, b.Node.Memory) || !about(a.Node.Data, b.Node.Data))
}

// publishBudget puts the budget into the report.
func (d *Daemon) publishBudget(b *budget.Budget, admitted bool) {
	n := &status.NodeBudget{Size: b.Size, Admitted: admitted, Reserve: share(b.Reserve),
		Node: status.Share{CPU: b.Node.CPUs, Memory: b.Node.Memory}, Enforcement: "cgroup v1"}
	if d.v2() {
		n.Enforcement = "cgroup v2"
	}
	for _, s := range b.Services {
		n.Guaranteed.CPU += s.Guaranteed.CPU
		n.Guaranteed.Memory += s.Guaranteed.Memory
		n.Guaranteed.Pids += s.Guaranteed.Pids
		n.Limits.CPU += s.Limit.CPU
		n.Limits.Memory += s.Limit.Memory
		n.Limits.Pids += s.Limit.Pids
	}
	// One-shots end before others start: not all of it falls due at once.
	n.Guaranteed.CPU = math.Round((n.Guaranteed.CPU-b.Overlap.CPU)*1e4) / 1e4
	n.Guaranteed.Memory -= b.Overlap.Memory
	n.Limits.CPU = math.Round(n.Limits.CPU*1e4) / 1e4
	d.update(func(r *status.Report) bool {
		r.Budget = n
		r.Services = slices.Clone(r.Services)
		d.budget = b
		d.addBudgets(r.Services)
		return true
	})
}

// addBudgets puts each service's budget beside its state. It is for use inside
// of an edit of the report.
func (d *Daemon) addBudgets(services []status.Service) {
	for i := range services {
		b, ok := d.budget.Service(services[i].Name)
		if !ok {
			continue
		}
		s := &status.ServiceBudget{Guaranteed: share(b.Guaranteed), Limit: share(b.Limit), CPUWeight: b.CPUWeight, IOWeight: b.IOWeight,
			OOMScoreAdj: b.OOMScoreAdj, Sheddable: b.Sheddable, ShedOrder: b.ShedOrder}
		for _, name := range d.mounted[b.Name] {
			i := slices.IndexFunc(d.budget.Volumes, func(v budget.Volume) bool { return v.Name == name })
			if i >= 0 {
				s.Volumes = append(s.Volumes, status.VolumeBudget{Name: name, Bytes: d.budget.Volumes[i].Bytes})
			}
		}
		services[i].Budget = s
		if services[i].Class == "" {
			services[i].Class = string(b.Class)
		}
	}
}

func share(a budget.Amount) status.Share {
	return status.Share{CPU: a.CPU, Memory: a.Memory, Pids: a.Pids}
}

// allowances lists what services have although it is refused elsewhere.
func allowances(st *stack.Stack) []status.Allowance {
	out := []status.Allowance{}
	for _, name := range st.Services {
		allow := st.Extensions[name].Allow
		for _, key := range slices.Sorted(maps.Keys(allow)) {
			out = append(out, status.Allowance{Service: name, Key: key, Reason: allow[key]})
		}
	}
	return out
}

// mountedVolumes are the named volumes of each service, by their keys in the
// stack.
func mountedVolumes(st *stack.Stack) map[string][]string {
	out := map[string][]string{}
	for _, name := range st.Services {
		for _, v := range st.Project.Services[name].Volumes {
			if v.Type == "volume" && v.Source != "" && !slices.Contains(out[name], v.Source) {
				out[name] = append(out[name], v.Source)
			}
		}
	}
	return out
}

// confinable is b as far as an engine can honour it. A process without
// CAP_SYS_RESOURCE, as in most containers, can't give another one an OOM score
// below its own, and containers that ask for one don't start. The engine is
// taken to have what the daemon has; on a box both have all.
func (d *Daemon) confinable(b *budget.Budget) *budget.Budget {
	if b == nil || d.box || !confined(d.c.Root) || !slices.ContainsFunc(b.Services, func(s budget.Service) bool { return s.OOMScoreAdj < 0 }) {
		return b
	}
	d.setOther("oom", []status.Condition{{Code: "oom-protection-observed", Severity: "info",
		Text:   "critical services are not protected from the kernel's OOM killer: this host does not let processes be protected",
		Remedy: "nothing, or run engine and supervisor with CAP_SYS_RESOURCE; a Holdfast box does it"}})
	c := *b
	c.Services = slices.Clone(b.Services)
	for i := range c.Services {
		c.Services[i].OOMScoreAdj = max(0, c.Services[i].OOMScoreAdj)
	}
	return &c
}

// confined says whether this process lacks CAP_SYS_RESOURCE (bit 24,
// capabilities(7)); not where that can't be read.
func confined(root string) bool {
	b, err := os.ReadFile(filepath.Join("/", root, "proc/self/status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err == nil && caps>>24&1 == 0
		}
	}
	return false
}

// translated is what the supervisor runs.
func (d *Daemon) translated(f *Found, gen int, b *budget.Budget, secrets map[string]string) (*supervise.Desired, error) {
	return supervise.Translate(f.Stack.Project, f.Stack.Services, supervise.Options{
		Generation: gen, FilesDir: filepath.Join(d.c.State, "supervise", "files"), SecretFiles: secrets,
		Budget: d.confinable(b), Extensions: f.Stack.Extensions, Slices: d.slices(),
	})
}
