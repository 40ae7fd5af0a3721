package main

import (
	"net"
	"runtime/debug"
	"testing"
	"time"
)

// A small heap is left to grow up to leastHeap, as far as the steps allow; a large one is collected often.
func TestGCPercent(t *testing.T) {
	for _, c := range []struct{ live, want int64 }{
		{0, 200}, {1 << 20, 200}, {2 << 20, 200}, {3 << 20, 150}, {4 << 20, 100}, {6 << 20, 25}, {8 << 20, 25}, {1 << 30, 25},
	} {
		if got := gcPercentFor(c.live); got != int(c.want) {
			t.Errorf("%d bytes live: GOGC is %d, want %d", c.live, got, c.want)
		}
	}
}

// While somebody has turned the collector off, it stays off. What that one sets afterwards is corrected.
func TestTuneLeavesCollectorOff(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	h := newHeap()
	h.adjust()
	if got := debug.SetGCPercent(77); got != -1 {
		t.Errorf("GOGC is %d", got)
	}
	h.adjust()
	want := gcPercentFor(h.read(live))
	if got := debug.SetGCPercent(77); got != want {
		t.Errorf("GOGC is %d, want %d", got, want)
	}
	h.adjust()
	if got := debug.SetGCPercent(-1); got != want {
		t.Errorf("GOGC was set by somebody else, and is %d then, want %d", got, want)
	}
}

// When a burst of connections is over, what it has left lying about is collected, unless that is hardly anything.
func TestCollectAfterBurst(t *testing.T) {
	const (
		tries       = 8
		connections = 3000 // they allocate enough for a collection while they come
	)
	v := startAdmin(t)
	for range tries {
		for range connections {
			conn, err := net.Dial("tcp", v.d.address)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		}
		over := time.Now()
		<-time.After(10 * calmTime) // a request would allocate as well
		_, text := v.request("GET", "/metrics")
		if last := metric(text, "go_memstats_last_gc_time_seconds"); last > float64(over.UnixMilli())/1000 {
			return
		}
	}
	t.Errorf("nothing was collected after %d bursts of %d connections", tries, connections)
}
