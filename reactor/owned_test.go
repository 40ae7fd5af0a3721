//go:build race

package reactor

import "testing"

// TestAssertOn touches something of a loop on that loop and elsewhere.
func TestAssertOn(t *testing.T) {
	srv := start(t, setup{loops: 2})
	panics := func(l *Loop) (panicked bool) {
		defer func() { panicked = recover() != nil }()
		l.AssertOn("something")
		return false
	}
	for i, h := range srv.handlers {
		other := srv.handlers[1-i].loop
		h.do(t, func() {
			if panics(h.loop) || !panics(other) {
				t.Errorf("on loop %d: wrong about the loop itself, or about the other one", i)
			}
		})
		if !panics(h.loop) {
			t.Errorf("loop %d is touched by the test, and does not notice", i)
		}
	}
}
