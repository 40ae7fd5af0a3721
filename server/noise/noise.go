// Package noise logs what clients do wrong, so that one of them can neither fill the disk nor hide what the others do.
//
// Lines are counted for each source and each kind of line. Of one kind, one source gets some lines a second, and all of them
// together get some. Sources that do one thing wrong in a second have a share of their own, so they are heard however many are
// noisy. Once a second the log says what was left out, and about whom.
//
// It is safe from any goroutine: event loops log here, and goroutines that accept connections. Its one mutex is held for an
// access to a map, and only for clients that do something wrong. A table for each loop would be as many times as big, and its
// bounds as many times as high. No line is written under the mutex.
package noise

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// period is the time for which the bounds below hold. At its end the log says what was left out.
	period = time.Second
	// linesPerSource is the number of lines of one kind about one source.
	linesPerSource = 10
	// linesOfQuiet is the number of lines about sources of which nothing was left out in the period before, the first of each;
	// linesOfNoisy is the number of all other lines.
	linesOfQuiet, linesOfNoisy = 100, 100
	// maxSources bounds the sources and kinds that are told apart. What has no place counts as quiet.
	maxSources = 1024
	// namedSources is the number of lines at the end of a period, each about one source; one more is about the others.
	namedSources = 10
)

// Log is the log.
type Log struct {
	log   zerolog.Logger
	begun chan struct{} // has a token when a period begins

	mu           sync.Mutex
	active       bool           // a period goes on
	lines        map[key]*count // at most maxSources, among them those that were noisy in the period before
	quiet, noisy int            // lines that may still be written in this period
	others       int            // lines left out of sources that have no place in the table
}

// key is one kind of line about one source.
type key struct {
	from Source
	text string
}

// count is what has become of the lines of a key in this period.
type count struct {
	written, left int
	noisy         bool // in the period before there was more than one, and something was left out
}

// New returns a log that writes to another one.
func New(log zerolog.Logger) *Log {
	return &Log{log: log, begun: make(chan struct{}, 1), lines: make(map[key]*count)}
}

// Event begins a line about a source, which Send ends: nil, to which a line can be written as well, if it is to be left out. The
// text is its message, and the kind of line it is.
func (l *Log) Event(level zerolog.Level, from Source, text string) *zerolog.Event {
	if level < l.log.GetLevel() || !l.admit(key{from, text}) {
		return nil
	}
	return l.log.WithLevel(level).Str(zerolog.MessageFieldName, text)
}

// admit counts a line and reports whether it is to be written.
func (l *Log) admit(k key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.active {
		l.active, l.quiet, l.noisy = true, linesOfQuiet, linesOfNoisy
		select {
		case l.begun <- struct{}{}:
		default: // Run has ended
		}
	}
	c := l.lines[k]
	if c == nil && len(l.lines) < maxSources {
		c = &count{}
		l.lines[k] = c
	}
	budget := &l.quiet
	if c != nil && (c.noisy || c.written > 0) {
		budget = &l.noisy
	}
	written := *budget > 0 && (c == nil || c.written < linesPerSource)
	switch {
	case !written && c == nil:
		l.others++
	case !written:
		c.left++
	default:
		*budget--
		if c != nil {
			c.written++
		}
	}
	return written
}

// Run ends the periods until ctx is done. Between them it sleeps.
func (l *Log) Run(ctx context.Context) {
	for {
		select {
		case <-l.begun:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(period):
			l.Flush()
		case <-ctx.Done():
			return
		}
	}
}

// omission is what was left out.
type omission struct {
	key
	lines int
}

// Flush ends a period: it says what was left out in it.
func (l *Log) Flush() {
	l.mu.Lock()
	var omitted []omission
	for k, c := range l.lines {
		if c.left == 0 {
			delete(l.lines, k)
			continue
		}
		omitted = append(omitted, omission{k, c.left})
		*c = count{noisy: c.written+c.left > 1}
	}
	others := l.others
	l.others, l.active = 0, false
	l.mu.Unlock()

	slices.SortFunc(omitted, func(a, b omission) int { // the most first
		return cmp.Or(cmp.Compare(b.lines, a.lines), a.from.compare(b.from), cmp.Compare(a.text, b.text))
	})
	for i, o := range omitted {
		if i < namedSources {
			l.log.Warn().Stringer("from", o.from).Int("lines", o.lines).Str("warning", o.text).Msg("more of this were left out of the log")
		} else {
			others += o.lines
		}
	}
	if others > 0 {
		l.log.Warn().Int("lines", others).Msg("warnings about still more addresses were left out of the log")
	}
}
