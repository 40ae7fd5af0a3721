package main

import (
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
)

const (
	// queuedLines bounds the log lines that wait for a slow reader of stderr; further ones are dropped.
	queuedLines = 1024
	// flushTime is how long the process waits for that reader when it ends.
	flushTime = 200 * time.Millisecond
)

// queueWriter writes lines on a goroutine of its own, because an event loop that logs must not wait for a terminal or a
// pipe. Lines that do not fit into the queue are dropped and counted. (zerolog's diode does the same, but may keep the last
// line until the next one comes.)
type queueWriter struct {
	lines   chan queuedLine
	dropped atomic.Int64
	done    chan struct{}
}

// queuedLine is a line, or a question whether all lines before it are written.
type queuedLine struct {
	text    []byte
	written chan<- struct{} // closed for an answer; nil for a line
}

func newQueueWriter(out io.Writer) *queueWriter {
	w := &queueWriter{lines: make(chan queuedLine, queuedLines), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		log := zerolog.New(out).With().Timestamp().Logger()
		for line := range w.lines {
			if line.written != nil {
				close(line.written)
				continue
			}
			_, _ = out.Write(line.text) // there is nowhere to report an error
			if n := w.dropped.Swap(0); n > 0 {
				log.Warn().Int64("lines", n).Msg("log lines dropped: the reader of the log is too slow")
			}
		}
	}()
	return w
}

// Write queues a copy of one line. It never blocks and never fails.
func (w *queueWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- queuedLine{text: append([]byte(nil), line...)}:
	default:
		w.dropped.Add(1)
	}
	return len(line), nil
}

// flush waits until the lines that are queued now are written, at most flushTime. Write may be called meanwhile.
func (w *queueWriter) flush() {
	timeout := time.NewTimer(flushTime)
	defer timeout.Stop()
	written := make(chan struct{})
	select {
	case w.lines <- queuedLine{written: written}:
	case <-timeout.C:
		return
	}
	select {
	case <-written:
	case <-timeout.C:
	}
}

// close waits until the queued lines are written, at most flushTime. Write must not be called afterwards.
func (w *queueWriter) close() {
	close(w.lines)
	select {
	case <-w.done:
	case <-time.After(flushTime):
	}
}

// logFormat returns the writer of log lines for --log-format.
func logFormat(format string, stderr *os.File) io.Writer {
	if format == "console" || format == "auto" && isatty.IsTerminal(stderr.Fd()) {
		return zerolog.ConsoleWriter{Out: stderr, TimeFormat: time.RFC3339, NoColor: !isatty.IsTerminal(stderr.Fd())}
	}
	return stderr
}
