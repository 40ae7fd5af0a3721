package main

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// gate is a reader of the log that takes one line at a time.
type gate struct {
	lines chan string
}

func (g *gate) Write(line []byte) (int, error) {
	g.lines <- string(line)
	return len(line), nil
}

// Lines that do not fit are dropped and counted; those that were queued come in order.
func TestDroppedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const extra = 7
		g := &gate{lines: make(chan string)}
		w := newQueueWriter(g)
		if n, err := w.Write([]byte("0\n")); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		synctest.Wait()             // it is being written, and nobody reads it
		line := make([]byte, 0, 16) // used again and again, as zerolog does
		for i := range queuedLines + extra {
			line = fmt.Appendf(line[:0], "%d\n", i+1)
			if n, err := w.Write(line); n != len(line) || err != nil {
				t.Fatal(n, err)
			}
		}
		var complaints []string
		for i := 0; i <= queuedLines; {
			got := <-g.lines
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
	})
}

// close writes what is queued.
func TestCloseLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{lines: make(chan string, 3)}
		w := newQueueWriter(g)
		for range 3 {
			_, _ = w.Write([]byte("last words\n"))
		}
		w.close()
		if len(g.lines) != 3 {
			t.Errorf("%d of 3 lines were written", len(g.lines))
		}
	})
}

// close gives up on a reader that does not read.
func TestCloseStuckLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := &gate{lines: make(chan string)}
		w := newQueueWriter(stuck)
		_, _ = w.Write([]byte("nobody reads this\n"))
		began := time.Now()
		w.close()
		if took := time.Since(began); took != flushTime {
			t.Errorf("close took %s, want %s", took, flushTime)
		}
		<-stuck.lines
		<-w.done
	})
}

// flush waits until what was queued is written, and others may go on writing; it gives up on a reader that does not read.
func TestFlushLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{lines: make(chan string, 4)}
		w := newQueueWriter(g)
		for range 3 {
			_, _ = w.Write([]byte("last words\n"))
		}
		w.flush()
		if len(g.lines) != 3 {
			t.Errorf("%d of 3 lines were written", len(g.lines))
		}
		_, _ = w.Write([]byte("more\n"))
		w.close()

		stuck := &gate{lines: make(chan string)}
		w = newQueueWriter(stuck)
		_, _ = w.Write([]byte("nobody reads this\n"))
		began := time.Now()
		w.flush()
		if took := time.Since(began); took != flushTime {
			t.Errorf("flush took %s, want %s", took, flushTime)
		}
		<-stuck.lines
		w.close()
		<-w.done
	})
}
