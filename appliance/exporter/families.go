// SPDX-License-Identifier: Apache-2.0

package exporter

import "github.com/prometheus/client_golang/prometheus"

// family is one metric name. The table below is the only place where names are
// given, so the reference in docs is made from it.
type family struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	desc       *prometheus.Desc
}

// families in the order of the reference.
var families []*family

func define(kind prometheus.ValueType, name, help string, labels ...string) *family {
	f := &family{name: name, help: help, kind: kind, labels: labels, desc: prometheus.NewDesc(name, help, labels, nil)}
	families = append(families, f)
	return f
}

func gauge(name, help string, labels ...string) *family {
	return define(prometheus.GaugeValue, name, help, labels...)
}

func counter(name, help string, labels ...string) *family {
	return define(prometheus.CounterValue, name, help, labels...)
}

// The box.
var (
	buildInfo = gauge("holdfast_build_info", "Always 1; the labels are the version of the daemon and of the OS image.", "version", "os")
	boxInfo   = gauge("holdfast_box_info", "Always 1; the labels say which box this is, what it runs and from which slot.",
		"hostname", "machine_id", "platform", "slot", "release", "release_version")
	generation   = gauge("holdfast_generation", "Number of the (OS, stack, data) triple that runs.")
	rootVerified = gauge("holdfast_root_verified", "1 while the mounted root is the sealed one and the kernel has met no corrupted block on it. Not there on a host that is no box.")
	clock        = gauge("holdfast_clock_seconds", "The box's clock at the scrape, as seconds since 1970.")
	stackState   = gauge("holdfast_stack_state", "1 for the state the stack is in, 0 for the others.", "state")
	conditions   = gauge("holdfast_conditions", "Number of conditions that need attention, by code and severity.", "code", "severity")
	stage        = gauge("holdfast_boot_stage_seconds", "Time from the kernel's start until a stage of this boot was reached; not there before.", "stage")
)

// The engine and the supervisor's own work.
var (
	engineUp    = gauge("holdfast_engine_up", "1 while the container engine answers within its deadline.")
	engineMends = counter("holdfast_engine_mends_total", "Times the supervisor restarted the container engine since the daemon started.")
	reconcile   = gauge("holdfast_reconcile_duration_seconds", "Time that one turn of the supervisor's loop took (histogram).")
)

// The machine.
var (
	nodeCPUs      = gauge("holdfast_node_cpus", "Processors of the machine.")
	nodeCPU       = counter("holdfast_node_cpu_seconds_total", "Processor time that the machine has used, over all processors, idle and waiting for io left out.")
	nodeMemory    = gauge("holdfast_node_memory_bytes", "Memory of the machine.")
	nodeAvailable = gauge("holdfast_node_memory_available_bytes", "Memory that can be had without swapping, by the kernel's estimate.")
	diskSize      = gauge("holdfast_node_disk_size_bytes", "Size of a file system: data (volumes), engine (images and containers), state.", "disk")
	diskUsed      = gauge("holdfast_node_disk_used_bytes", "What of it is used.", "disk")
	nodePressure  = gauge("holdfast_node_pressure_ratio", "Share of the last 10 s in which some or all tasks of the machine waited for a resource (the kernel's PSI).", "resource", "tasks")
	pressureLevel = gauge("holdfast_pressure_level", "What the supervisor makes of it: 0 none, 1 warn, 2 high. At 2 services are shed.", "resource")
)

// Admission.
var (
	budgetInfo     = gauge("holdfast_budget_info", "Always 1; the labels are the size profile and how budgets are enforced here.", "size", "enforcement")
	budgetAdmitted = gauge("holdfast_budget_admitted", "1 where guarantees and reserve fit the machine; 0 holds the stack.")
	budgetCPU      = gauge("holdfast_budget_cpu_cores", "Processors: what the machine has (node), what is kept for the system (reserve), and the sums over the services (guaranteed, limit).", "share")
	budgetMemory   = gauge("holdfast_budget_memory_bytes", "Memory: the same.", "share")
)

// Other releases. Not there on a host that can have none.
var (
	upgradeState       = gauge("holdfast_upgrade_state", "1 for the state of upgrades, 0 for the others.", "state")
	upgradeTrial       = gauge("holdfast_upgrade_trial", "1 while the generation that runs is on trial, closed to the outside.")
	upgradeAvailable   = gauge("holdfast_upgrade_available", "1 while the source has a release that the box may install and does not run.")
	upgradeKept        = gauge("holdfast_upgrade_kept_generation", "Number of the generation that holdfast rollback goes back to; 0 for none.")
	upgradeQuarantined = gauge("holdfast_upgrade_quarantined_releases", "Releases that failed here and are not tried again.")
	upgradeDone        = gauge("holdfast_upgrade_transfer_done_bytes", "Bytes of the transfer under way that are on the box; 0 without one.")
	upgradeTotal       = gauge("holdfast_upgrade_transfer_bytes", "Bytes of the transfer under way in all; 0 without one.")
	upgradeChecked     = gauge("holdfast_upgrade_last_check_time_seconds", "When the source of releases last answered, as seconds since 1970; not there before.")
	upgradeResult      = gauge("holdfast_upgrade_last_result", "1 for how the last upgrade, rollback or drill ended, 0 for the other results; not there before one.", "kind", "result")
	upgradeEnded       = gauge("holdfast_upgrade_last_end_time_seconds", "When that was, as seconds since 1970.")
	upgradeDown        = gauge("holdfast_upgrade_last_down_seconds", "How long the services were away for it.")
	upgradeFetched     = gauge("holdfast_upgrade_last_fetched_bytes", "Bytes that were fetched for it.")
	upgradeReused      = gauge("holdfast_upgrade_last_reused_bytes", "Bytes of it that the box had already.")
)

// Services. maxPerService in the tests counts what this table makes of one.
var (
	serviceInfo = gauge("holdfast_service_info", "Always 1; the labels say what the service is.",
		"service", "class", "container", "image")
	serviceState    = gauge("holdfast_service_state", "1 for the state the service is in, 0 for the others.", "service", "state")
	serviceHealth   = gauge("holdfast_service_health", "1 for the health of the service, 0 for the others; all 0 where nothing checks it.", "service", "health")
	serviceReady    = gauge("holdfast_service_ready", "1 while the service does what it shall: it runs and no check fails, or it has completed.", "service")
	serviceSince    = gauge("holdfast_service_state_start_time_seconds", "When the service entered its state, as seconds since 1970.", "service")
	serviceRestarts = counter("holdfast_service_restarts_total", "Restarts over all boots of this generation, by their cause.", "service", "reason")
	serviceFailures = gauge("holdfast_service_failures", "Failures in a row; 0 once the service has been well for 10 minutes.", "service")
	serviceBackoff  = gauge("holdfast_service_backoff_seconds", "Time until the service is started again; 0 where it is not waiting for that.", "service")
	serviceProbes   = gauge("holdfast_service_probes_failing", "How many of the supervisor's own checks of the service fail; not there where it has none.", "service")

	serviceCPU           = counter("holdfast_service_cpu_seconds_total", "Processor time used.", "service")
	serviceCPULimit      = gauge("holdfast_service_cpu_limit_cores", "Processors it may use at most; not there without a limit.", "service")
	serviceCPUGuaranteed = gauge("holdfast_service_cpu_guaranteed_cores", "Processors it is guaranteed.", "service")
	servicePeriods       = counter("holdfast_service_cpu_periods_total", "Scheduling periods in which it wanted to run, counted under a limit only.", "service")
	serviceThrottled     = counter("holdfast_service_cpu_throttled_periods_total", "Those of them in which it hit its limit.", "service")
	serviceThrottledTime = counter("holdfast_service_cpu_throttled_seconds_total", "Time it was kept from running by its limit.", "service")

	serviceMemory           = gauge("holdfast_service_memory_working_set_bytes", "Memory used, without file cache that can be dropped (cAdvisor's working set).", "service")
	serviceMemoryLimit      = gauge("holdfast_service_memory_limit_bytes", "Memory it may use at most; not there without a limit.", "service")
	serviceMemoryGuaranteed = gauge("holdfast_service_memory_guaranteed_bytes", "Memory it is guaranteed.", "service")
	serviceOOM              = counter("holdfast_service_oom_kills_total", "Processes of the container that the kernel killed for want of memory.", "service")

	servicePids      = gauge("holdfast_service_pids", "Processes and threads.", "service")
	servicePidsLimit = gauge("holdfast_service_pids_limit", "Processes and threads it may have at most; not there without a limit.", "service")
	serviceRead      = counter("holdfast_service_io_read_bytes_total", "Bytes read from disks.", "service")
	serviceWritten   = counter("holdfast_service_io_written_bytes_total", "Bytes written to disks.", "service")
	servicePressure  = gauge("holdfast_service_pressure_ratio", "Share of the last 10 s in which some of its tasks waited for a resource (the kernel's PSI; cgroup v2 only).", "service", "resource")
)

// Volumes belong to no one service: two may share one.
var (
	volumeUsed  = gauge("holdfast_volume_used_bytes", "What a volume holds; not there where nobody has measured it yet.", "volume")
	volumeLimit = gauge("holdfast_volume_limit_bytes", "What it may hold at most; not there without a disk budget. enforced says whether the kernel sees to it (true) or it is only watched (false).", "volume", "enforced")
)

// The scrape itself.
var (
	scrapeUsage    = gauge("holdfast_scrape_usage_success", "0 where some of what is used could not be read: metrics made of it are missing or 0, and the journal says which.")
	scrapeDuration = gauge("holdfast_scrape_duration_seconds", "Time the box took to collect these metrics.")
)

// cAdvisor's names for what it shares with us
// (https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md),
// on request only.
var (
	containerCPU         = counter("container_cpu_usage_seconds_total", "Processor time used (cAdvisor's name).", "name")
	containerQuota       = gauge("container_spec_cpu_quota", "Processor time it may use in a period, in microseconds (cAdvisor's name).", "name")
	containerPeriod      = gauge("container_spec_cpu_period", "That period, in microseconds (cAdvisor's name).", "name")
	containerMemory      = gauge("container_memory_usage_bytes", "Memory used, with file cache (cAdvisor's name).", "name")
	containerWorkingSet  = gauge("container_memory_working_set_bytes", "Memory used, without file cache that can be dropped (cAdvisor's name).", "name")
	containerMemoryLimit = gauge("container_spec_memory_limit_bytes", "Memory it may use at most, 0 without a limit (cAdvisor's name).", "name")
	containerOOM         = counter("container_oom_events_total", "Processes killed for want of memory (cAdvisor's name).", "name")
	containerReads       = counter("container_fs_reads_total", "Reads from disks (cAdvisor's name).", "name")
	containerWrites      = counter("container_fs_writes_total", "Writes to disks (cAdvisor's name).", "name")
	containerSeen        = gauge("container_last_seen", "When the container was last seen, as seconds since 1970 (cAdvisor's name).", "name")
)
