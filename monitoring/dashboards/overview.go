// SPDX-License-Identifier: Apache-2.0

package dashboards

// box selects the chosen box.
const box = `instance="$instance"`

// full are the limits for shares of something finite.
var full = []Limit{{0.75, yellow}, {0.9, red}}

func overview() Dashboard {
	return Dashboard{
		UID: "holdfast-box", Title: "Holdfast: box",
		Description: "One box: what its stack does, what it has left, and how its supervisor fares.",
		Rows: []Row{
			{Title: "Now", Panels: []Panel{
				{Title: "Stack", Description: "State of the stack as a whole.", Kind: Stat, W: 4, H: 5, Unit: "short",
					Queries: []Query{{Expr: stackState()}}, Values: stackValues},
				{Title: "Services not ready", Description: "Services that neither do what they shall nor have completed.", Kind: Stat, W: 4, H: 5, Unit: "short",
					Queries: []Query{{Expr: `count(holdfast_service_ready{` + box + `} == 0) or vector(0)`}}, Limits: []Limit{{1, orange}, {3, red}}},
				{Title: "Conditions", Description: "Things that need attention, information left out.", Kind: Stat, W: 4, H: 5, Unit: "short",
					Queries: []Query{{Expr: `sum(holdfast_conditions{` + box + `, severity!="info"}) or vector(0)`}}, Limits: []Limit{{1, orange}}},
				{Title: "Processor", Description: "Share of all processors in use over 5 minutes.", Kind: Gauge, W: 4, H: 5, Unit: "percentunit", Max: 1,
					Queries: []Query{{Expr: `rate(holdfast_node_cpu_seconds_total{` + box + `}[5m]) / holdfast_node_cpus{` + box + `}`}}, Limits: full},
				{Title: "Memory", Description: "Share of memory that cannot be had without swapping.", Kind: Gauge, W: 4, H: 5, Unit: "percentunit", Max: 1,
					Queries: []Query{{Expr: `1 - holdfast_node_memory_available_bytes{` + box + `} / holdfast_node_memory_bytes{` + box + `}`}}, Limits: full},
				{Title: "Fullest disk", Description: "Use of the file system that has the least left.", Kind: Gauge, W: 4, H: 5, Unit: "percentunit", Max: 1,
					Queries: []Query{{Expr: `max(holdfast_node_disk_used_bytes{` + box + `} / holdfast_node_disk_size_bytes{` + box + `})`}}, Limits: full},
			}},
			{Title: "Services", Panels: []Panel{
				{Title: "State of each service", Description: "Starting and unhealthy are of running services.", Kind: Timeline, W: 16, H: 14, Unit: "short",
					Queries: []Query{{Expr: serviceState(), Legend: "{{service}}"}}, Values: serviceValues},
				{Title: "Conditions", Description: "`holdfast status` on the box says what happened and what to do.", Kind: Table, W: 8, H: 7,
					Queries: []Query{{Expr: `holdfast_conditions{` + box + `}`, Faults: true}},
					Columns: []Column{{"severity", "Severity", ""}, {"code", "Condition", ""}, {"Value", "Number", ""}}},
				{Title: "Restarts by cause", Description: "Restarts within 15 minutes, over all services.", Kind: Series, W: 8, H: 7, Below: true, Unit: "short", Stack: true, Steps: true,
					Queries: []Query{{Expr: `sum by (reason) (increase(holdfast_service_restarts_total{` + box + `}[15m])) > 0`, Legend: "{{reason}}", Faults: true}}},
			}},
			{Title: "Machine", Panels: []Panel{
				{Title: "Processor", Description: "Used, and what the budgets say: what services are guaranteed, may use in all, and what the machine has.", Kind: Series, W: 8, H: 8, Unit: "short",
					Queries: []Query{
						{Expr: `rate(holdfast_node_cpu_seconds_total{` + box + `}[5m])`, Legend: "used", Color: green},
						{Expr: `holdfast_budget_cpu_cores{` + box + `, share="guaranteed"}`, Legend: "guaranteed", Dashed: true, Color: blue},
						{Expr: `holdfast_budget_cpu_cores{` + box + `, share="node"}`, Legend: "machine", Dashed: true, Color: red}}},
				{Title: "Memory", Description: "Used by services (working set) and by the rest, below what is guaranteed, may be used in all, and what the machine has.", Kind: Series, W: 8, H: 8, Unit: "bytes", Stack: true,
					Queries: []Query{
						{Expr: `sum(holdfast_service_memory_working_set_bytes{` + box + `})`, Legend: "services", Color: green},
						{Expr: `clamp_min(holdfast_node_memory_bytes{` + box + `} - holdfast_node_memory_available_bytes{` + box + `} - on () sum(holdfast_service_memory_working_set_bytes{` + box + `}), 0)`, Legend: "system", Color: gray},
						{Expr: `holdfast_budget_memory_bytes{` + box + `, share="guaranteed"}`, Legend: "guaranteed", Dashed: true, Color: blue},
						{Expr: `holdfast_node_memory_bytes{` + box + `}`, Legend: "machine", Dashed: true, Color: red}}},
				{Title: "Pressure", Description: "Share of time in which some or all tasks waited for a resource (the kernel's PSI).", Kind: Series, W: 8, H: 8, Unit: "percentunit",
					Queries: []Query{{Expr: `holdfast_node_pressure_ratio{` + box + `}`, Legend: "{{resource}}, {{tasks}} tasks"}}},
			}},
			{Title: "Disks", Panels: []Panel{
				{Title: "Disks", Description: "Use of the box's file systems.", Kind: Series, W: 8, H: 8, Unit: "percentunit", Max: 1,
					Queries: []Query{{Expr: `holdfast_node_disk_used_bytes{` + box + `} / holdfast_node_disk_size_bytes{` + box + `}`, Legend: "{{disk}}"}}, Limits: full},
				{Title: "Volumes of their disk budget", Description: "The twelve fullest.", Kind: Bars, W: 8, H: 8, Unit: "percentunit", Max: 1,
					Queries: []Query{{Expr: `topk(12, holdfast_volume_used_bytes{` + box + `} / ignoring (enforced) holdfast_volume_limit_bytes{` + box + `})`, Legend: "{{volume}}"}}, Limits: full},
				{Title: "Disk traffic", Description: "The five busiest services, read and written.", Kind: Series, W: 8, H: 8, Unit: "Bps",
					Queries: []Query{{Expr: `topk(5, rate(holdfast_service_io_read_bytes_total{` + box + `}[5m]) + rate(holdfast_service_io_written_bytes_total{` + box + `}[5m]))`, Legend: "{{service}}"}}},
			}},
			{Title: "Releases", Panels: []Panel{
				{Title: "Upgrade", Description: "What is under way between two releases; in a trial services are closed to the outside.", Kind: Timeline, W: 8, H: 5, Unit: "short",
					Queries: []Query{{Expr: upgradeState(), Legend: "upgrade"}}, Values: upgradeValues},
				{Title: "Last upgrade, rollback or drill", Description: "`holdfast why` on the box explains one that did not go well.", Kind: Table, W: 8, H: 5,
					Queries: []Query{{Expr: `holdfast_upgrade_last_result{` + box + `} == 1`}},
					Columns: []Column{{"kind", "What", ""}, {"result", "Result", ""}}},
				{Title: "Time since the source answered", Description: "How long the box has heard of no release.", Kind: Stat, W: 4, H: 5, Unit: "s",
					Queries: []Query{{Expr: `holdfast_clock_seconds{` + box + `} - on (instance, job) holdfast_upgrade_last_check_time_seconds{` + box + `}`}}, Limits: []Limit{{86400, yellow}, {3 * 86400, red}}},
				{Title: "Away for the last one", Description: "How long the services did not answer.", Kind: Stat, W: 4, H: 5, Unit: "s",
					Queries: []Query{{Expr: `holdfast_upgrade_last_down_seconds{` + box + `}`}}},
			}},
			{Title: "Supervisor", Panels: []Panel{
				{Title: "Engine and pressure", Description: "Whether Docker answers within its deadline, and how much the box is under pressure.", Kind: Timeline, W: 8, H: 4, Unit: "short",
					Queries: []Query{{Expr: `holdfast_engine_up{` + box + `}`, Legend: "engine"}, {Expr: `sum by (instance) (holdfast_pressure_level{` + box + `}) * 0 + 1 + max by (instance) (holdfast_pressure_level{` + box + `})`, Legend: "pressure"}},
					Values:  []Value{{0, "down", red}, {1, "well", green}, {2, "warn", yellow}, {3, "high", red}}},
				{Title: "This box", Description: "Which box this is and what it runs.", Kind: Table, W: 8, H: 4, Below: true,
					Queries: []Query{{Expr: `holdfast_box_info{` + box + `}`}},
					Columns: []Column{{"hostname", "Name", ""}, {"release", "Release", ""}, {"release_version", "Version", ""}, {"slot", "Slot", ""}, {"platform", "Platform", ""}}},
				{Title: "Turns of the loop", Description: "Time that one turn of the supervisor's loop takes.", Kind: Series, W: 8, H: 8, Unit: "s",
					Queries: []Query{
						{Expr: `histogram_quantile(0.5, rate(holdfast_reconcile_duration_seconds_bucket{` + box + `}[10m]))`, Legend: "median"},
						{Expr: `histogram_quantile(0.95, rate(holdfast_reconcile_duration_seconds_bucket{` + box + `}[10m]))`, Legend: "95th of 100"}}},
				{Title: "What watching costs", Description: "Processor time of the daemon, as a share of one processor.", Kind: Series, W: 8, H: 8, Unit: "percentunit",
					Queries: []Query{{Expr: `rate(process_cpu_seconds_total{` + box + `, job="holdfast"}[5m])`, Legend: "daemon"}}},
			}},
		},
	}
}
