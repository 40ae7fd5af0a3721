package main

import (
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"dreadlock/server/api"
)

// writeFleet adds what is known of the fleet to the status.
func writeFleet(t table, f *api.Fleet) {
	t.row("fleet", fleetTouch(f))
	for i, d := range f.Daemons {
		text := d.Address
		if d.Self {
			text += " (this one)"
		}
		t.row(head(i, "daemons"), text+", "+d.Version+", "+some(d.Places, "place"))
	}
	t.row("places", count(f.Places)+" of "+count(f.AllPlaces)+" in lines")
	for i := range f.Members {
		t.row(head(i, f.Store), storeMember(&f.Members[i]))
	}
	for i, text := range f.Warnings {
		t.row(head(i, "warnings"), text)
	}
}

// head is the head of a row: only the first of some rows about the same has it.
func head(row int, text string) string {
	if row > 0 {
		return ""
	}
	return text
}

// fleetTouch says whether the daemon is in touch with its fleet.
func fleetTouch(f *api.Fleet) string {
	since := span(max(time.Since(f.Since).Seconds(), 0))
	if !f.InTouch {
		return "OUT OF TOUCH for " + since + ", nothing is granted: " + f.Reason
	}
	return "in touch for " + since + ", lease " + f.Lease + " for " + span(f.LeaseLeftSeconds) + " more, watch " + span(f.WatchLagSeconds) +
		" behind, lock space " + f.Space
}

// storeMember shows a member of the store.
func storeMember(m *api.StoreMember) string {
	if !m.Reachable {
		return m.Endpoint + ": " + m.Error
	}
	parts := []string{m.Endpoint, m.Version}
	if m.Leader {
		parts = append(parts, "leader")
	}
	size := humanize.IBytes(uint64(m.SizeBytes))
	if m.QuotaBytes > 0 {
		size += " of " + humanize.IBytes(uint64(m.QuotaBytes))
	}
	parts = append(parts, size)
	for _, alarm := range m.Alarms {
		parts = append(parts, "ALARM "+alarm)
	}
	return strings.Join(parts, ", ")
}

// writeFleetCounters adds what was counted since the start.
func writeFleetCounters(t table, f *api.Fleet) {
	t.row("writes", some(f.Transactions, "transaction")+" of "+some(f.Operations, "operation")+", "+count(f.Repeats)+" repeated")
	t.row("watch", count(f.WatchRestarts)+" begun anew, "+some(f.Lists, "list"))
	t.row("lost touch", nonZero(f.Lost, api.LossReasons))
}
