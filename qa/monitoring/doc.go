// SPDX-License-Identifier: Apache-2.0

// Package monitoring tests the monitoring pack against a real Prometheus: that
// it scrapes an exporter, that the rules load, fire and keep quiet as they
// shall, and that every query of rules and dashboards finds its metrics.
package monitoring
