package reactor

import (
	"runtime"
	"testing"
)

// TestProcs leaves room for more than the loops, unless somebody has said how much room there is.
func TestProcs(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	chosen := runtime.GOMAXPROCS(0)
	for loops := range chosen + 3 {
		if got := Procs(loops); got <= loops || got < chosen {
			t.Errorf("%d for %d loops, with %d chosen by the runtime", got, loops, chosen)
		}
	}
	t.Setenv("GOMAXPROCS", "1")
	if got := Procs(100); got != chosen {
		t.Errorf("%d although the environment has chosen", got)
	}
}
