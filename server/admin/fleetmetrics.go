package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"dreadlock/server/api"
)

// fleetMetric is a metric without labels that only a daemon of a fleet has.
type fleetMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*api.Fleet) float64
}

func fleetGauge(name, help string, value func(*api.Fleet) float64) fleetMetric {
	return fleetMetric{desc("fleet_"+name, help), prometheus.GaugeValue, value}
}

func fleetCounter(name, help string, value func(*api.Fleet) uint64) fleetMetric {
	return fleetMetric{desc("fleet_"+name, help), prometheus.CounterValue, func(f *api.Fleet) float64 { return float64(value(f)) }}
}

var fleetMetrics = []fleetMetric{
	fleetGauge("in_touch", "Whether the daemon is in touch with its fleet: 1 if it is, else 0. Without touch nothing is granted.",
		func(f *api.Fleet) float64 {
			if f.InTouch {
				return 1
			}
			return 0
		}),
	fleetGauge("lease_left_seconds", "Time for which grants may still be told unless the lease is renewed.",
		func(f *api.Fleet) float64 { return f.LeaseLeftSeconds }),
	fleetGauge("watch_lag_seconds", "Time from a write of this daemon until it sees it.",
		func(f *api.Fleet) float64 { return f.WatchLagSeconds }),
	fleetGauge("places", "Places of this daemon in the lines for keys.", func(f *api.Fleet) float64 { return float64(f.Places) }),
	fleetGauge("all_places", "Places of all daemons in the lines for keys.", func(f *api.Fleet) float64 { return float64(f.AllPlaces) }),
	fleetGauge("daemons", "Daemons of the fleet.", func(f *api.Fleet) float64 { return float64(len(f.Daemons)) }),
	fleetGauge("store_members", "Members of the store of the fleet.", func(f *api.Fleet) float64 { return float64(len(f.Members)) }),
	fleetGauge("store_members_reachable", "Members of the store of the fleet that answer.", func(f *api.Fleet) (n float64) {
		for i := range f.Members {
			if f.Members[i].Reachable {
				n++
			}
		}
		return n
	}),
	fleetGauge("warnings", "Things that are wrong with how the store of the fleet is run; the status names them.",
		func(f *api.Fleet) float64 { return float64(len(f.Warnings)) }),
	fleetCounter("transactions_total", "Transactions that were written.", func(f *api.Fleet) uint64 { return f.Transactions }),
	fleetCounter("operations_total", "Operations that were written in transactions: places taken, left and refused, signs of life.",
		func(f *api.Fleet) uint64 { return f.Operations }),
	fleetCounter("repeats_total", "Transactions that were written again, as no answer came.", func(f *api.Fleet) uint64 { return f.Repeats }),
	fleetCounter("watch_restarts_total", "Times that the watch of the store was begun anew.",
		func(f *api.Fleet) uint64 { return f.WatchRestarts }),
	fleetCounter("lists_total", "Times that all places were read.", func(f *api.Fleet) uint64 { return f.Lists }),
}

var (
	fleetLost  = desc("fleet_lost_total", "Times that the daemon has lost touch with its fleet, and with it all that was held.", "reason")
	storeSize  = desc("fleet_store_size_bytes", "Size of the database of a member of the store.", "endpoint")
	storeQuota = desc("fleet_store_quota_bytes", "Size of the database beyond which a member of the store writes nothing.", "endpoint")
)

// describeFleet lists what sendFleet sends.
func describeFleet(out chan<- *prometheus.Desc) {
	for _, m := range fleetMetrics {
		out <- m.desc
	}
	out <- fleetLost
	out <- storeSize
	out <- storeQuota
}

// sendFleet sends what is known of a fleet.
func sendFleet(out chan<- prometheus.Metric, f *api.Fleet) {
	for _, m := range fleetMetrics {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(f))
	}
	sendLabelled(out, fleetLost, api.LossReasons, f.Lost)
	for i := range f.Members {
		m := &f.Members[i]
		if m.Reachable {
			out <- prometheus.MustNewConstMetric(storeSize, prometheus.GaugeValue, float64(m.SizeBytes), m.Endpoint)
		}
		if m.QuotaBytes > 0 {
			out <- prometheus.MustNewConstMetric(storeQuota, prometheus.GaugeValue, float64(m.QuotaBytes), m.Endpoint)
		}
	}
}
