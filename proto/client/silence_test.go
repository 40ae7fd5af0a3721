package client

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestAgree(t *testing.T) {
	says := func(silence time.Duration) *introduction { return &introduction{silence: silence} }
	const s = time.Second
	for name, tc := range map[string]struct {
		remote               bool
		keepAlive, heartbeat time.Duration
		server               *introduction
		want                 Silence
	}{
		"the defaults":             {true, 15 * s, 0, says(60 * s), Silence{60 * s, 30 * s, 15 * s}},
		"a hasty server":           {true, 15 * s, 0, says(2 * s), Silence{2 * s, s, s / 2}},
		"a patient server":         {true, 15 * s, 0, says(time.Hour), Silence{time.Hour, 30 * s, 15 * s}},
		"shorter":                  {true, s, 0, says(60 * s), Silence{60 * s, 2 * s, s}},
		"never longer":             {true, time.Hour, 0, says(60 * s), Silence{60 * s, 30 * s, 15 * s}},
		"for a proxy":              {true, 15 * s, 2 * s, says(60 * s), Silence{60 * s, 30 * s, 2 * s}},
		"a proxy with patience":    {true, 15 * s, time.Minute, says(60 * s), Silence{60 * s, 30 * s, 15 * s}},
		"off":                      {true, 15 * s, 0, says(0), Silence{0, 30 * s, 0}},
		"off, with a proxy":        {true, 15 * s, 2 * s, says(0), Silence{0, 30 * s, 2 * s}},
		"an older server":          {true, 15 * s, 2 * s, nil, Silence{0, 30 * s, 0}},
		"an older server, shorter": {true, s, 2 * s, nil, Silence{0, 4 * s, 0}}, // what the kernel can do
		"a Unix socket":            {false, 15 * s, 0, says(60 * s), Silence{60 * s, 0, 0}},
		"a Unix socket to a proxy": {false, 15 * s, 2 * s, says(60 * s), Silence{60 * s, 30 * s, 2 * s}},
		"an older Unix socket":     {false, 15 * s, 2 * s, nil, Silence{}},
		"the longest there is":     {true, maxKeepAlive, math.MaxInt64, says(math.MaxInt64), Silence{math.MaxInt64, 2 * maxKeepAlive, maxKeepAlive}},
	} {
		if got := agree(tc.remote, tc.keepAlive, tc.heartbeat, tc.server); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

// Whatever is configured and announced, the client gives up after half of the server's time at the latest, and has asked
// twice by then; and what the options say can only make that sooner.
func TestAgreeIsShorter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Durations of every magnitude, and the ends.
		duration := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "ns") >> rapid.IntRange(0, 63).Draw(t, "shift"))
		})
		o := Options{KeepAlive: duration.Draw(t, "keepalive"), Heartbeat: duration.Draw(t, "heartbeat")}.withDefaults()
		server := duration.Draw(t, "server").Truncate(time.Millisecond)
		s := agree(true, o.KeepAlive, o.Heartbeat, &introduction{silence: server})
		switch {
		case s.Server != server, s.Lost < 0, s.Heartbeat < 0:
			t.Fatalf("%+v", s)
		case server > 0 && (s.Lost > server/2 || s.Heartbeat == 0):
			t.Fatalf("%+v: too late", s)
		case s.Heartbeat > s.Lost/2:
			t.Fatalf("%+v: the heartbeats are too rare", s)
		case s.Heartbeat > 0 && s.Lost > 2*o.KeepAlive, o.Heartbeat > 0 && s.Heartbeat > o.Heartbeat:
			t.Fatalf("%+v: longer than %+v", s, o)
		}
		if k := shorter(o.KeepAlive, server); k > o.KeepAlive || server >= 8*time.Second && 2*k > server/2 {
			t.Fatalf("the kernel's probes come after %s", k)
		}
	})
}
