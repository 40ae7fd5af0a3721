package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What the cases of takeovers have in common. A daemon starts its successor by the path by which it was started itself, with the same
// arguments and environment. So before a takeover that path is made to lead to a script, which makes it lead to the daemon again, and
// then becomes the successor, in another environment or with something between the two.

// program returns the path of the daemon's program.
func (t *trial) program() string {
	if t.script != "" {
		return t.script
	}
	return t.options.Daemon
}

// install makes a script the program at the daemon's path. The next start of the daemon runs it, with the daemon's program in $DAEMON, once
// that is at the path again.
func (t *trial) install(script string) {
	const back = `ln -s "$DAEMON" "$0.$$" && mv -T "$0.$$" "$0" || exit`
	t.replace("#!/bin/bash\nDAEMON='" + t.options.Daemon + "'\n" + back + "\n" + script + "\n")
}

// replace makes a text the file at the daemon's path.
func (t *trial) replace(text string) {
	if t.script == "" {
		t.script = filepath.Join(t.dir, "dreadlock")
	}
	next := t.script + ".next"
	// No process that is started meanwhile may have the file open for writing: it could not be run.
	syscall.ForkLock.RLock()
	err := os.WriteFile(next, []byte(text), 0o600)
	syscall.ForkLock.RUnlock()
	t.must(err)
	t.must(os.Chmod(next, 0o700)) //nolint:gosec // it is a program
	t.must(os.Rename(next, t.script))
}

// asItself is the script of a daemon with a number of loops.
func asItself(loops int) string {
	return "export DREADLOCK_LOOPS=" + strconv.Itoa(loops) + "\n" + `exec -a "$0" "$DAEMON" "$@"`
}

// newTakeoverLab is newLab with a daemon that can be taken over from, with two loops.
func (t *trial) newTakeoverLab(hosts int, options ...string) *lab {
	if err := adoptOrphans(); err != nil {
		t.skip("adopt orphans: %w", err)
	}
	t.install(asItself(2))
	l := t.newLab(hosts, options...)
	l.daemon.restarts = true
	return l
}

// takeover is what the daemon says of a takeover.
type takeover struct {
	Count        uint64  `json:"count"`
	FromPID      int     `json:"from_pid"`
	PID          int     `json:"pid"`
	PauseSeconds float64 `json:"pause_seconds"`
	Connections  int     `json:"connections"`
	HeldKeys     int     `json:"held_keys"`
	Waiters      int     `json:"waiters"`
	Closed       int     `json:"closed"`
}

// pause is how long the loops stood.
func (o *takeover) pause() time.Duration { return time.Duration(o.PauseSeconds * float64(time.Second)) }

// errRefused is wrapped by the error of a takeover that the daemon says has not happened.
var errRefused = errors.New("no takeover")

// takeOver asks for a takeover, and returns when it is over, either way. Its error wraps errRefused if the daemon says that it has not
// happened; after another one nobody knows.
func (d *daemon) takeOver() (*takeover, error) {
	const enough = 2 * time.Minute // more than all of the daemon's bounds together
	request, err := http.NewRequestWithContext(d.t.ctx, http.MethodPost, "http://localhost/api/v1/takeover", http.NoBody)
	if err != nil {
		return nil, err
	}
	client := *d.admin
	client.Timeout = enough
	d.admin.CloseIdleConnections() // a POST is not tried again on another one
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: %s: %s", errRefused, response.Status, strings.TrimSpace(string(text)))
	}
	var done takeover
	return &done, json.Unmarshal(text, &done)
}

// takeOverBySignal is takeOver by SIGUSR2, for one that must succeed. The number is the one that the takeover will have.
func (l *lab) takeOverBySignal(number uint64) (*takeover, error) {
	l.daemon.signal(unix.SIGUSR2)
	var last error
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); l.t.pause(5 * time.Millisecond) {
		var s status
		if last = l.daemon.get("/api/v1/status", &s); last != nil {
			continue
		}
		if s.Takeover != nil && s.Takeover.Count == number {
			return s.Takeover, nil
		}
		last = fmt.Errorf("the daemon is process %d, and says of takeovers %+v; log: %s", s.PID, s.Takeover, l.daemon.log.String())
	}
	return nil, fmt.Errorf("SIGUSR2: no takeover number %d: %w", number, last)
}

// askBySignal is takeOver by SIGUSR2, for a daemon that may refuse or end.
func (l *lab) askBySignal() (*takeover, error) {
	const refusal = "no takeover"
	d, began := l.daemon, len(l.daemon.log.String())
	pid := d.pid()
	d.signal(unix.SIGUSR2)
	for deadline := time.Now().Add(4 * patience); time.Now().Before(deadline); l.t.pause(5 * time.Millisecond) {
		for line := range strings.Lines(d.log.String()[began:]) {
			if strings.Contains(line, refusal) {
				return nil, fmt.Errorf("%w: %s", errRefused, strings.TrimSpace(line))
			}
		}
		if d.pid() != pid {
			return &takeover{FromPID: pid, PID: d.pid()}, nil
		}
		if !d.running() {
			return nil, errors.New("the daemon has ended")
		}
	}
	return nil, errors.New("SIGUSR2: nothing happens")
}

// awaitSuccessor returns when the process that has been the daemon has ended, and the other one is it. It is a violation if that does
// not come.
func (d *daemon) awaitSuccessor(done *takeover) {
	d.t.eventually(patience, "the predecessor ends", func() error {
		if pids := d.daemons(); !slices.Equal(pids, []int{done.PID}) || d.pid() != done.PID {
			return fmt.Errorf("%d has taken over from %d, and there are %v", done.PID, done.FromPID, pids)
		}
		return nil
	})
	if end := d.lives.end(); end != nil && !end.Success() {
		d.t.violate("a predecessor ends with %s: %s", end, d.log.String())
	}
}
