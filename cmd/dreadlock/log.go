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
	// queuedLines bounds the log lines that wait for a slow reader of stderr; what comes on top is dropped.
	queuedLines = 1024
	// flushTime bounds how long the end of the process may wait for that reader.
	flushTime = 200 * time.Millisecond
)

// queueWriter writes lines on a goroutine of its own, because an event loop that logs must not wait for a terminal or a
// pipe. Lines that do not fit are dropped and counted. (The diode of zerolog does the same, but may leave the last line
// lying until the next one comes.)
type queueWriter struct {
	lines   chan []byte
	dropped atomic.Int64
	done    chan struct{}
}

func newQueueWriter(out io.Writer) *queueWriter {
	w := &queueWriter{lines: make(chan []byte, queuedLines), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		log := zerolog.New(out).With().Timestamp().Logger()
		for line := range w.lines {
			_, _ = out.Write(line) // there is nowhere to complain
			if n := w.dropped.Swap(0); n > 0 {
				log.Warn().Int64("lines", n).Msg("log lines dropped: whoever reads the log is too slow")
			}
		}
	}()
	return w
}

// Write queues a copy of one line. It never blocks and never fails.
func (w *queueWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- append([]byte(nil), line...):
	default:
		w.dropped.Add(1)
	}
	return len(line), nil
}

// close writes what is queued, unless that takes too long. Nothing may be written afterwards.
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
		return zerolog.ConsoleWriter{Out: stderr, TimeFormat: time.DateTime, NoColor: !isatty.IsTerminal(stderr.Fd())}
	}
	return stderr
}
