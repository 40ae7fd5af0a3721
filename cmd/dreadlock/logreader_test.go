package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// logLine is a line of the log in JSON.
type logLine map[string]any

func (l logLine) text(field string) string { return fmt.Sprint(l[field]) }

// logReader reads the log of a daemon as it comes.
type logReader struct {
	pipe *os.File
	mu   sync.Mutex
	more *sync.Cond
	all  []byte
	json []logLine
	end  bool
}

func readLog(pipe *os.File) *logReader {
	r := &logReader{pipe: pipe}
	r.more = sync.NewCond(&r.mu)
	go func() {
		in := bufio.NewReader(pipe)
		for {
			text, err := in.ReadBytes('\n')
			r.mu.Lock()
			r.all = append(r.all, text...)
			var line logLine
			if json.Unmarshal(text, &line) == nil {
				r.json = append(r.json, line)
			}
			r.end = err != nil
			r.more.Broadcast()
			r.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return r
}

// await returns the first line with a message, which may still have to come.
func (r *logReader) await(message string) (found logLine, ok bool) {
	return r.awaitLine(func(line logLine) bool { return line["message"] == message })
}

// awaitLine returns the first line that is wanted, which may still have to come.
func (r *logReader) awaitLine(wanted func(logLine) bool) (found logLine, ok bool) {
	ok = r.until(func() bool {
		for _, line := range r.json {
			if wanted(line) {
				found = line
				return true
			}
		}
		return r.end
	})
	return found, ok && found != nil
}

// awaitText fails the test unless a text comes that is not in a line of JSON.
func (r *logReader) awaitText(tb testing.TB, part string) {
	tb.Helper()
	found := false
	r.until(func() bool {
		found = strings.Contains(string(r.all), part)
		return found || r.end
	})
	if !found {
		tb.Fatalf("no %q in the log:\n%s", part, r)
	}
}

func (r *logReader) awaitEnd() { r.until(func() bool { return r.end }) }

// until waits for a condition on what was read, with patience.
func (r *logReader) until(condition func() bool) bool {
	late := false
	timer := time.AfterFunc(prototest.Patience, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		late = true
		r.more.Broadcast()
	})
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !condition() {
		if late {
			return false
		}
		r.more.Wait()
	}
	return true
}

// close stops reading: the reader of the log goes away.
func (r *logReader) close() { _ = r.pipe.Close() }

func (r *logReader) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.all)
}
