//go:build race

package reactor

import (
	"bytes"
	"fmt"
	"runtime"
	"sync/atomic"
)

// owned is what a loop needs to tell whether it runs: the number of its goroutine, 0 before the first turn.
type owned struct {
	goroutine atomic.Pointer[string]
}

// onLoop says that the loop runs on this goroutine. It does so for good.
func (l *Loop) onLoop() {
	if l.owned.goroutine.Load() == nil {
		name := goroutine()
		l.owned.goroutine.Store(&name)
	}
}

// AssertOn panics if it is not called on the loop, naming what is touched. It does so in builds with the race detector
// alone: the detector sees two loops that touch a field at about the same time, this sees one that touches a field which is
// another's.
func (l *Loop) AssertOn(what string) {
	if on := l.owned.goroutine.Load(); on == nil || *on != goroutine() {
		panic(fmt.Sprintf("reactor: %s belongs to loop %d and is touched on another goroutine", what, l.index))
	}
}

// goroutine returns the name of this goroutine, "goroutine 17", as a stack trace begins with it.
func goroutine() string {
	var buf [32]byte
	name, _, _ := bytes.Cut(buf[:runtime.Stack(buf[:], false)], []byte(" ["))
	return string(name)
}
