package bench

import (
	"runtime"
	"testing"
)

func TestRaiseProcs(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	for _, test := range []struct {
		environment          string
		procs, threads, want int
	}{
		{"", 2, 1, 2},
		{"", 2, 2, 3},
		{"", 2, 5, 6},
		{"", 8, 3, 8},
		{"2", 2, 5, 2}, // the environment decides
	} {
		t.Setenv("GOMAXPROCS", test.environment)
		runtime.GOMAXPROCS(test.procs)
		raiseProcs(test.threads)
		if got := runtime.GOMAXPROCS(0); got != test.want {
			t.Errorf("%d Ps, %d threads, environment %q: %d Ps, want %d", test.procs, test.threads, test.environment, got, test.want)
		}
	}
}
