package main

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// gate is a reader of the log that reads one line when it is told to.
type gate struct {
	lines chan string
}

func (g *gate) Write(line []byte) (int, error) {
	g.lines <- string(line)
	return len(line), nil
}

func (g *gate) next(t *testing.T) string {
	t.Helper()
	select {
	case line := <-g.lines:
		return line
	case <-time.After(prototest.Patience):
		t.Fatal("no line is written")
		return ""
	}
}

// Lines that nobody reads are dropped, and it is said how many; those that were queued come in order.
func TestDroppedLines(t *testing.T) {
	const extra = 7
	g := &gate{lines: make(chan string)}
	w := newQueueWriter(g)
	if n, err := w.Write([]byte("0\n")); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	for len(w.lines) > 0 { // it is being written, and nobody reads it
		runtime.Gosched()
	}
	line := make([]byte, 0, 16) // used again and again, as zerolog does
	for i := range queuedLines + extra {
		line = fmt.Appendf(line[:0], "%d\n", i+1)
		if n, err := w.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	var complaints []string
	for i := 0; i <= queuedLines; {
		got := g.next(t)
		if strings.Contains(got, "log lines dropped") {
			complaints = append(complaints, got)
			continue
		}
		if want := fmt.Sprintf("%d\n", i); got != want {
			t.Fatalf("line %q, want %q", got, want)
		}
		i++
	}
	w.close()
	if len(complaints) != 1 || !strings.Contains(complaints[0], fmt.Sprintf(`"lines":%d,`, extra)) {
		t.Errorf("complaints: %q, want one about %d lines", complaints, extra)
	}
}

// The end of the daemon writes what is queued, and does not wait for ever for somebody who does not read.
func TestCloseLog(t *testing.T) {
	g := &gate{lines: make(chan string, 3)}
	w := newQueueWriter(g)
	for range 3 {
		_, _ = w.Write([]byte("last words\n"))
	}
	w.close()
	if len(g.lines) != 3 {
		t.Errorf("%d of 3 lines were written", len(g.lines))
	}

	stuck := &gate{lines: make(chan string)}
	w = newQueueWriter(stuck)
	_, _ = w.Write([]byte("nobody reads this\n"))
	closed := make(chan struct{})
	go func() {
		w.close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(prototest.Patience):
		t.Error("close waits for a reader that does not read")
	}
	stuck.next(t)
	<-w.done
}
