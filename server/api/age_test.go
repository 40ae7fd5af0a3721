package api

import (
	"math"
	"testing"
	"time"
)

func TestAge(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "0 ms", 0.0123: "12 ms", 0.9999: "999 ms", 1: "1.0 s", 3.99: "3.9 s", 9.999: "9.9 s", 10: "10 s", 59.99: "59 s",
		60: "1 min 0 s", 200: "3 min 20 s", 3599.9: "59 min 59 s", 3600: "1 h 0 min", 86_399: "23 h 59 min",
		86_400: "1 d 0 h", 615_600: "7 d 3 h", 1e18: "106751 d 23 h", math.Inf(1): "106751 d 23 h", -1: "0 ms",
	} {
		if got := Age(seconds); got != want {
			t.Errorf("%v s: %q, want %q", seconds, got, want)
		}
	}
}

func TestInstant(t *testing.T) {
	at := time.Date(2026, 11, 24, 12, 0, 5, 999, time.FixedZone("", 7200))
	got, err := time.Parse(time.RFC3339, Instant(at))
	if err != nil || !got.Equal(at.Truncate(time.Second)) {
		t.Errorf("%q: %v", Instant(at), err)
	}
}
