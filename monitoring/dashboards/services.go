// SPDX-License-Identifier: Apache-2.0

package dashboards

// chosen selects the chosen services of the chosen box.
const chosen = `instance="$instance", service=~"$service"`

func services() Dashboard {
	return Dashboard{
		UID: "holdfast-services", Title: "Holdfast: services and budgets", PerService: true,
		Description: "What each service uses of what it is guaranteed and may use.",
		Rows: []Row{
			{Title: "Use of limits", Panels: []Panel{
				{Title: "Memory", Description: "Working set as a share of the limit.", Kind: Bars, W: 8, H: 14, Unit: "percentunit", Max: 1, Limits: full,
					Queries: []Query{{Expr: `sort_desc(holdfast_service_memory_working_set_bytes{` + chosen + `} / holdfast_service_memory_limit_bytes{` + chosen + `})`, Legend: "{{service}}"}}},
				{Title: "Processor", Description: "Use over 5 minutes as a share of the limit.", Kind: Bars, W: 8, H: 14, Unit: "percentunit", Max: 1, Limits: full,
					Queries: []Query{{Expr: `sort_desc(rate(holdfast_service_cpu_seconds_total{` + chosen + `}[5m]) / holdfast_service_cpu_limit_cores{` + chosen + `})`, Legend: "{{service}}"}}},
				{Title: "Processes", Description: "Processes and threads as a share of the limit.", Kind: Bars, W: 8, H: 14, Unit: "percentunit", Max: 1, Limits: full,
					Queries: []Query{{Expr: `sort_desc(holdfast_service_pids{` + chosen + `} / holdfast_service_pids_limit{` + chosen + `})`, Legend: "{{service}}"}}},
			}},
			{Title: "Budgets", Panels: []Panel{
				{Title: "Use and budget", Description: "Memory and processors: used, guaranteed, limit; restarts of this generation.", Kind: Table, W: 24, H: 18,
					Queries: []Query{
						{Expr: `sum by (service) (holdfast_service_memory_working_set_bytes{` + chosen + `})`}, {Expr: `sum by (service) (holdfast_service_memory_guaranteed_bytes{` + chosen + `})`}, {Expr: `sum by (service) (holdfast_service_memory_limit_bytes{` + chosen + `})`},
						{Expr: `sum by (service) (rate(holdfast_service_cpu_seconds_total{` + chosen + `}[5m]))`}, {Expr: `sum by (service) (holdfast_service_cpu_guaranteed_cores{` + chosen + `})`}, {Expr: `sum by (service) (holdfast_service_cpu_limit_cores{` + chosen + `})`},
						{Expr: `sum by (service) (holdfast_service_restarts_total{` + chosen + `})`}, {Expr: `sum by (service, class) (holdfast_service_info{` + chosen + `})`},
					},
					Columns: []Column{{"service", "Service", ""}, {"class", "Class", ""},
						{"Value #A", "Memory", "bytes"}, {"Value #B", "guaranteed", "bytes"}, {"Value #C", "limit", "bytes"},
						{"Value #D", "Processors", "short"}, {"Value #E", "guaranteed ", "short"}, {"Value #F", "limit ", "short"}, {"Value #G", "Restarts", "short"}}},
			}},
			{Title: "Over time", Panels: []Panel{
				{Title: "Memory", Description: "Working set of each service.", Kind: Series, W: 12, H: 11, Right: true, Unit: "bytes", Stack: true,
					Queries: []Query{{Expr: `holdfast_service_memory_working_set_bytes{` + chosen + `}`, Legend: "{{service}}"}}},
				{Title: "Processors", Description: "Processors each service uses, over 5 minutes.", Kind: Series, W: 12, H: 11, Right: true, Unit: "short", Stack: true,
					Queries: []Query{{Expr: `rate(holdfast_service_cpu_seconds_total{` + chosen + `}[5m])`, Legend: "{{service}}"}}},
				{Title: "Throttled", Description: "Share of scheduling periods in which a service hit its processor limit.", Kind: Series, W: 12, H: 11, Right: true, Unit: "percentunit", Max: 1,
					Queries: []Query{{Expr: `rate(holdfast_service_cpu_throttled_periods_total{` + chosen + `}[5m]) / (rate(holdfast_service_cpu_periods_total{` + chosen + `}[5m]) > 0)`, Legend: "{{service}}"}}},
				{Title: "Pressure", Description: "Share of time in which some tasks of a service waited for a resource, 2% and more (cgroup v2).", Kind: Series, W: 12, H: 11, Right: true, Unit: "percentunit",
					Queries: []Query{{Expr: `holdfast_service_pressure_ratio{` + chosen + `} > 0.02`, Legend: "{{service}}: {{resource}}", Faults: true}}},
				{Title: "Failures in a row", Description: "0 once a service has been well for 10 minutes; 5 is a crash loop.", Kind: Series, W: 12, H: 8, Unit: "short",
					Queries: []Query{{Expr: `holdfast_service_failures{` + chosen + `} > 0`, Legend: "{{service}}", Faults: true}}},
				{Title: "Out of memory", Description: "Processes the kernel killed for want of memory, within 15 minutes.", Kind: Series, W: 12, H: 8, Unit: "short", Steps: true,
					Queries: []Query{{Expr: `increase(holdfast_service_oom_kills_total{` + chosen + `}[15m]) > 0`, Legend: "{{service}}", Faults: true}}},
			}},
			{Title: "$service", Each: true, Panels: []Panel{
				{Title: "Memory of $service", Description: "Working set below its guarantee and its limit.", Kind: Series, W: 12, H: 8, Unit: "bytes",
					Queries: []Query{
						{Expr: `holdfast_service_memory_working_set_bytes{` + chosen + `}`, Legend: "used", Color: green},
						{Expr: `holdfast_service_memory_guaranteed_bytes{` + chosen + `}`, Legend: "guaranteed", Dashed: true, Color: blue},
						{Expr: `holdfast_service_memory_limit_bytes{` + chosen + `}`, Legend: "limit", Dashed: true, Color: red}}},
				{Title: "Processors of $service", Description: "Use over 5 minutes below its guarantee and its limit.", Kind: Series, W: 12, H: 8, Unit: "short",
					Queries: []Query{
						{Expr: `rate(holdfast_service_cpu_seconds_total{` + chosen + `}[5m])`, Legend: "used", Color: green},
						{Expr: `holdfast_service_cpu_guaranteed_cores{` + chosen + `}`, Legend: "guaranteed", Dashed: true, Color: blue},
						{Expr: `holdfast_service_cpu_limit_cores{` + chosen + `}`, Legend: "limit", Dashed: true, Color: red}}},
			}},
		},
	}
}
