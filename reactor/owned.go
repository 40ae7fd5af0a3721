//go:build !race

package reactor

// owned is what a loop needs to tell whether it runs; see the other build.
type owned struct{}

func (*owned) onLoop() {}

// AssertOn panics if it is not called on the loop. It does so in builds with the race detector alone.
func (*owned) AssertOn(string) {}
