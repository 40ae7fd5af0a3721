package main

import "dreadlock/server/api"

// rates are events per second between two samples.
type rates struct {
	Commands    float64 `json:"commands"` // answered, of all kinds
	Locks       float64 `json:"locks"`    // that got the key, at once or after a wait
	Unlocks     float64 `json:"unlocks"`
	Grants      float64 `json:"grants"` // keys granted to a waiter
	Timeouts    float64 `json:"timeouts"`
	Accepted    float64 `json:"accepted"`
	Disconnects float64 `json:"disconnects"`
}

// ratesBetween returns nil if there are none: for the first sample, and if the daemon was restarted in between.
func ratesBetween(before, after *sample) *rates {
	if before == nil || !before.Status.Started.Equal(after.Status.Started) {
		return nil
	}
	seconds := after.Status.UptimeSeconds - before.Status.UptimeSeconds // by the daemon's clock, so without delays of the network
	if seconds <= 0 {
		return nil
	}
	b, a := &before.Status.Counters, &after.Status.Counters
	per := func(before, after uint64) float64 {
		if after < before {
			return 0 // the loops of a sample are read one after another
		}
		return float64(after-before) / seconds
	}
	return &rates{
		Commands:    per(commands(b, "", ""), commands(a, "", "")),
		Locks:       per(commands(b, "lock", "locked"), commands(a, "lock", "locked")),
		Unlocks:     per(commands(b, "unlock", "unlocked"), commands(a, "unlock", "unlocked")),
		Grants:      per(b.Grants, a.Grants),
		Timeouts:    per(b.Timeouts, a.Timeouts),
		Accepted:    per(b.Accepted, a.Accepted),
		Disconnects: per(disconnects(b), disconnects(a)),
	}
}

// commands returns the number of commands of a kind and with an outcome, either empty for all.
func commands(c *api.Counters, kind, outcome string) (total uint64) {
	for _, n := range c.Commands {
		if (kind == "" || n.Kind == kind) && (outcome == "" || n.Outcome == outcome) {
			total += n.Count
		}
	}
	return total
}

func disconnects(c *api.Counters) (total uint64) {
	for _, n := range c.Disconnects {
		total += n
	}
	return total
}
