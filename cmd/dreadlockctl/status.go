package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"dreadlock/server/api"
)

// statusCommand shows the version, the sizes and the counters of the daemon.
type statusCommand struct {
	jsonOption
}

// Help has examples.
func (*statusCommand) Help() string {
	return `Examples:

  dreadlockctl status
  dreadlockctl status --json | jq .held_keys

Counters start at zero when the daemon starts, and go on after a takeover. A wait is counted when it ends, and a key that was held when its holder has
lost it or given it up.`
}

// Run shows the status.
func (c *statusCommand) Run(ctx context.Context, s *streams, g *globals) error {
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	var status api.Status
	if err := a.get(ctx, &status, nil, "status"); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.stdout, status)
	}
	if err := writeStatus(s.stdout, &status, g.naming()); err != nil || status.Drain == nil || status.HeldKeys == 0 {
		return err
	}
	held, err := a.keys(ctx, &api.KeyQuery{Order: api.ByAge, Limit: heldShown})
	if err != nil {
		return err
	}
	held.entries = slices.DeleteFunc(held.entries, func(k api.Key) bool { return k.FreesInSeconds > 0 }) // nobody can give them up
	return writeHeld(s.stdout, &held, g.naming())
}

// heldShown is the number of held keys that are shown while the daemon drains.
const heldShown = 10

// writeHeld writes the keys for which a drain waits. naming is that of the options, for hints.
func writeHeld(w io.Writer, held *page[api.Key], naming string) error {
	if len(held.entries) == 0 {
		return nil // they have been released
	}
	if _, err := fmt.Fprint(w, "\nstill held, the longest first:\n\n"); err != nil {
		return err
	}
	more := held.next != ""
	held.next = ""
	if err := writeKeys(w, held); err != nil || !more {
		return err
	}
	_, err := fmt.Fprintf(w, "%s of %s; dreadlockctl locks --sort age --all%s shows all\n", count(len(held.entries)),
		some(held.matching, "key"), naming)
	return err
}

// headline identifies the daemon.
func headline(s *api.Status) string { return strings.Join(headlineParts(s), ", ") }

// headlineParts returns the parts of the headline.
func headlineParts(s *api.Status) []string {
	parts := []string{fmt.Sprintf("dreadlock %s at %s", s.Version, s.Address)}
	if s.Drain != nil {
		parts = append(parts, "draining")
	}
	if s.Fleet != nil && !s.Fleet.InTouch {
		parts = append(parts, "out of touch with its fleet")
	}
	return append(parts, "up "+span(s.UptimeSeconds), some(s.Loops, "loop"))
}

func writeStatus(w io.Writer, s *api.Status, naming string) error {
	if _, err := fmt.Fprintf(w, "%s\n\n", headline(s)); err != nil {
		return err
	}
	t := newTable(w)
	if d := s.Drain; d != nil {
		t.row("draining", fmt.Sprintf("since %s, until %s at the latest (%s left)",
			api.Instant(d.Since), api.Instant(d.Until), span(d.SecondsLeft)))
	}
	if s.PID > 0 { // else it is an older daemon
		t.row("process", strconv.Itoa(s.PID))
	}
	if s.Takeover != nil {
		t.row("took over", latestTakeover(s.Takeover))
	}
	if s.GrantsInSeconds > 0 {
		t.row("granting", "in "+span(s.GrantsInSeconds)+": keys may have been held before the daemon started")
	}
	t.row("connections", fmt.Sprintf("%s of %s", count(s.Connections), count(s.MaxConnections)))
	t.row("held keys", count(s.HeldKeys)+oldest(s.OldestHoldSeconds))
	if s.MemoryLimitBytes > 0 { // else it is an older daemon
		t.row("memory", fmt.Sprintf("%s of %s", humanize.IBytes(uint64(s.MemoryBytes)), humanize.IBytes(uint64(s.MemoryLimitBytes))))
	}
	if s.LockDelaySeconds > 0 {
		t.row("resting keys", fmt.Sprintf("%s, for %s after the end of their holder's connection", count(s.RestingKeys), span(s.LockDelaySeconds)))
	}
	t.row("waiters", count(s.Waiters)+oldest(s.OldestWaitSeconds))
	if s.Deadlocks == 0 {
		t.row("deadlocks", "none")
	} else {
		t.row("deadlocks", count(s.Deadlocks)+" (see dreadlockctl deadlocks"+naming+")")
	}
	if len(s.Listen) > 1 {
		t.row("listens at", strings.Join(s.Listen, " "))
	}
	if !s.CertificateExpires.IsZero() {
		t.row("certificate", "expires "+api.Instant(s.CertificateExpires))
	}
	if s.Fleet != nil {
		writeFleet(t, s.Fleet)
	}
	t.row("")
	c := &s.Counters
	t.row("accepted", some(c.Accepted, "connection"))
	t.row("refused", nonZero(c.Refused, api.RefusalReasons))
	if errs := nonZero(c.AcceptErrors, api.AcceptErrors); errs != none {
		t.row("accept errors", errs)
	}
	t.row("ended", nonZero(c.Disconnects, api.DisconnectReasons))
	t.row("lock", outcomes(c.Commands, "lock"))
	t.row("unlock", outcomes(c.Commands, "unlock"))
	t.row("waits", fmt.Sprintf("%s granted, %s timed out%s", count(c.Grants), count(c.Timeouts), otherEnds(c.WaitsByOutcome)))
	if text := waitTimes(&c.Waits); text != "" {
		t.row("waited", text)
	}
	if text := waitTimes(&c.Holds); text != "" {
		t.row("held", text)
	}
	t.row("limits", nonZero(c.LimitHits, api.Limits))
	t.row("deadlocks", fmt.Sprintf("%s found, %s broken", count(c.DeadlocksFound), count(c.DeadlocksBroken)))
	if n := c.TakeoversFailed; n > 0 {
		t.row("takeovers", count(n)+" failed: the log says why")
	}
	t.row("loops", fmt.Sprintf("%s, %s, %s moved", some(c.Messages, "message"), some(c.WakeUps, "wake-up"), some(c.Moves, "connection")))
	if s.Fleet != nil {
		writeFleetCounters(t, s.Fleet)
	}
	return t.Flush()
}

// nonZero lists the counts that are not zero, those with known names first.
func nonZero(counts map[string]uint64, known []string) string {
	names := slices.Clone(known)
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if !slices.Contains(known, name) { // of a newer daemon
			names = append(names, name)
		}
	}
	var parts []string
	for _, name := range names {
		if counts[name] > 0 {
			parts = append(parts, count(counts[name])+" "+words(name))
		}
	}
	return orNone(parts)
}

// outcomes lists the outcomes of the commands of one kind.
func outcomes(commands []api.CommandCount, kind string) string {
	var parts []string
	for _, c := range commands {
		if c.Kind == kind && c.Count > 0 {
			parts = append(parts, count(c.Count)+" "+words(c.Outcome))
		}
	}
	return orNone(parts)
}

func words(name string) string { return strings.ReplaceAll(name, "_", " ") }

// none stands for an empty list.
const none = "none"

func orNone(parts []string) string {
	if len(parts) == 0 {
		return none
	}
	return strings.Join(parts, ", ")
}

// oldest says how old the oldest of some is, and nothing if there are none.
func oldest(seconds float64) string {
	if seconds == 0 {
		return ""
	}
	return ", the longest for " + span(seconds)
}

// otherEnds lists the waits that have ended otherwise than by a grant or a timeout, each after a comma.
func otherEnds(waits map[string]api.Histogram) (text string) {
	others := make(map[string]uint64)
	for how, h := range waits {
		if how != api.WaitLocked && how != api.WaitTimedOut {
			others[how] = total(&h)
		}
	}
	if text = nonZero(others, api.WaitOutcomes); text == none {
		return ""
	}
	return ", " + text
}

// total returns the number of values in a histogram.
func total(h *api.Histogram) (n uint64) {
	for _, in := range h.Counts {
		n += in
	}
	return n
}

// waitTimes sums up waits or holds: the mean, and upper bounds of the median and of the 99th percentile.
func waitTimes(h *api.Histogram) string {
	n := total(h)
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s on average, 50 %% %s, 99 %% %s", span(h.Sum/float64(n)), bound(h, n, 0.5), bound(h, n, 0.99))
}

// bound returns an upper bound of a quantile: that of its bucket.
func bound(h *api.Histogram, total uint64, part float64) string {
	var below uint64
	for i, n := range h.Counts {
		below += n
		if i < len(h.Bounds) && float64(below) >= part*float64(total) {
			return "at most " + span(h.Bounds[i])
		}
	}
	if len(h.Bounds) == 0 {
		return "unknown"
	}
	return "more than " + span(h.Bounds[len(h.Bounds)-1])
}
