//go:build race

package reactor

import (
	"fmt"
	"runtime"
	"sync/atomic"
)

// owned is what a loop needs to tell whether it runs: the number of its goroutine, 0 before the first turn.
type owned struct {
	goroutine atomic.Uint64
}

// onLoop says that the loop runs on this goroutine. It does so for good.
func (o *owned) onLoop() {
	if o.goroutine.Load() == 0 {
		o.goroutine.Store(goroutine())
	}
}

// AssertOn panics if it is not called on the loop, naming what is touched. It does so in builds with the race detector
// alone: the detector sees two loops that touch a field at about the same time, this sees one that touches a field which is
// another's.
func (o *owned) AssertOn(what string) {
	if on := o.goroutine.Load(); on != goroutine() {
		panic(fmt.Sprintf("reactor: %s of the loop on goroutine %d touched on goroutine %d", what, on, goroutine()))
	}
}

// traces are buffers for the begin of a stack trace. A sync.Pool would forget some, on purpose, in this build.
var traces = make(chan *[32]byte, 64)

// goroutine returns the number of this goroutine, as a stack trace begins with it: "goroutine 17 [running]".
func goroutine() (number uint64) {
	var trace *[32]byte
	select {
	case trace = <-traces:
	default:
		trace = new([32]byte)
	}
	defer func() {
		select {
		case traces <- trace:
		default:
		}
	}()
	n := runtime.Stack(trace[:], false)
	for _, c := range trace[len("goroutine "):n] {
		if c < '0' || c > '9' {
			break
		}
		number = number*10 + uint64(c-'0')
	}
	return number
}
