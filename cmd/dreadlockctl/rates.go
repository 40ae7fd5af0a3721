package main

import "dreadlock/server/api"

// rates are counts per second between two looks.
type rates struct {
	Commands    float64 `json:"commands"` // answered, of both kinds
	Locks       float64 `json:"locks"`    // that got the key, at once or later
	Unlocks     float64 `json:"unlocks"`
	Grants      float64 `json:"grants"` // keys that went to a waiter
	Timeouts    float64 `json:"timeouts"`
	Accepted    float64 `json:"accepted"`
	Disconnects float64 `json:"disconnects"`
}

// ratesBetween returns nil where there are none: at the first look, and when the daemon was started anew in between.
func ratesBetween(before, after *look) *rates {
	if before == nil || !before.Status.Started.Equal(after.Status.Started) {
		return nil
	}
	seconds := after.Status.UptimeSeconds - before.Status.UptimeSeconds // on the daemon's clock, without the way there
	if seconds <= 0 {
		return nil
	}
	b, a := &before.Status.Counters, &after.Status.Counters
	per := func(before, after uint64) float64 {
		if after < before {
			return 0 // loops are asked one after the other
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

// commands adds up the commands of a kind and outcome, empty for all.
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
