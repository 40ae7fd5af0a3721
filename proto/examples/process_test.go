package examples

import (
	"bufio"
	"bytes"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// The exit statuses of all snippets.
const (
	notLocked = 75
	lost      = 76
)

// forever is how long a snippet works, in seconds, that is not to end by itself.
const forever = 3600

// process is a run of a snippet.
type process struct {
	tb     testing.TB
	cmd    *exec.Cmd
	lines  chan string // of its output; closed when nobody can write to it any more
	stderr bytes.Buffer
}

// begin runs a snippet, whose command is given: it waits for a key for some milliseconds and works for some seconds.
func begin(tb testing.TB, command []string, host, port, key string, wait, work int) *process {
	tb.Helper()
	args := slices.Concat(command[1:], []string{host, port, key, strconv.Itoa(wait), strconv.Itoa(work)})
	p := &process{tb: tb, cmd: exec.CommandContext(tb.Context(), command[0], args...), lines: make(chan string, 16)}
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) } // so that it ends its work
	p.cmd.WaitDelay = prototest.Patience
	p.cmd.Stderr = &p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for in := bufio.NewScanner(stdout); in.Scan(); {
			p.lines <- in.Text()
		}
	}()
	return p
}

// line returns the next line of its output; false if there is none because it has ended, and its work.
func (p *process) line() (string, bool) {
	p.tb.Helper()
	select {
	case line, more := <-p.lines:
		return line, more
	case <-time.After(prototest.Patience):
		p.tb.Fatalf("%v says nothing", p.cmd)
		return "", false
	}
}

// locked waits until it has the key, and returns the token.
func (p *process) locked(key string) (token uint64) {
	p.tb.Helper()
	line, _ := p.line()
	text, found := strings.CutPrefix(line, "locked "+key+" with token ")
	token, err := strconv.ParseUint(text, 10, 63)
	if !found || err != nil {
		p.tb.Fatalf("%v says %q (stderr %q), want that it has locked %s", p.cmd, line, p.end(), key)
	}
	return token
}

// unlocked expects that it gives the key back and ends.
func (p *process) unlocked(key string) {
	p.tb.Helper()
	if line, _ := p.line(); line != "unlocked "+key {
		p.tb.Errorf("%v says %q, want that it has unlocked %s", p.cmd, line, key)
	}
	p.ends(0, "")
}

// ends expects that it ends with its work, says no more, and that its last words are these.
func (p *process) ends(status int, words string) {
	p.tb.Helper()
	stderr := p.end()
	if got := p.cmd.ProcessState.ExitCode(); got != status || !strings.HasSuffix(stderr, words) || words == "" && stderr != "" {
		p.tb.Errorf("%v ends with status %d and %q, want %d and %q", p.cmd, got, stderr, status, words)
	}
}

// end waits for its end and returns what it has said on stderr.
func (p *process) end() (stderr string) {
	p.tb.Helper()
	for line, more := p.line(); more; line, more = p.line() {
		p.tb.Errorf("%v says %q", p.cmd, line)
	}
	_ = p.cmd.Wait() // its status is looked at
	return strings.TrimSpace(p.stderr.String())
}
